package statuspage

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Session is one open session. Clients and certificates chose some of its texts.
type Session struct {
	ID             uint64     `json:"id"`
	Identity       string     `json:"identity"`
	Subject        string     `json:"subject"`
	Serial         string     `json:"serial"`
	NotAfter       *time.Time `json:"not_after,omitempty"`
	Address        string     `json:"address"`
	User           string     `json:"user"`
	Library        string     `json:"library"`
	LibraryVersion string     `json:"library_version"`
	TLSVersion     string     `json:"tls_version"`
	Since          time.Time  `json:"since"`
	Commands       uint64     `json:"commands"`
	InFlight       int        `json:"in_flight"`
	Place          string     `json:"place"`
	Generation     uint64     `json:"generation"`
}

// Sessions is one page of the open sessions.
type Sessions struct {
	Total   int       `json:"total"`   // open
	Matched int       `json:"matched"` // of them, those that the query asks for
	Page    int       `json:"page"`    // from 1
	Pages   int       `json:"pages"`
	List    []Session `json:"list"`

	Query Query `json:"-"` // that was answered
}

const (
	defaultLimit = 50
	maxLimit     = 10000
)

// Query says which sessions to show. ParseQuery makes one.
type Query struct {
	Identity   string // a part of the identity
	Filter     string // a part of the identity, subject, serial, address, user or library
	Sort       string // a key of sortKeys
	Descending bool
	Page       int // from 1
	Limit      int // sessions on a page
}

// sortKeys compare by one column each.
var sortKeys = map[string]func(a, b *Session) int{
	"id":        func(a, b *Session) int { return cmp.Compare(a.ID, b.ID) },
	"identity":  func(a, b *Session) int { return strings.Compare(a.Identity, b.Identity) },
	"subject":   func(a, b *Session) int { return strings.Compare(a.Subject, b.Subject) },
	"serial":    func(a, b *Session) int { return strings.Compare(a.Serial, b.Serial) },
	"not_after": func(a, b *Session) int { return compareEnds(a.NotAfter, b.NotAfter) },
	"address":   func(a, b *Session) int { return strings.Compare(a.Address, b.Address) },
	"user":      func(a, b *Session) int { return strings.Compare(a.User, b.User) },
	"library": func(a, b *Session) int {
		return cmp.Or(strings.Compare(a.Library, b.Library), strings.Compare(a.LibraryVersion, b.LibraryVersion))
	},
	"tls":        func(a, b *Session) int { return strings.Compare(a.TLSVersion, b.TLSVersion) },
	"age":        func(a, b *Session) int { return b.Since.Compare(a.Since) },
	"commands":   func(a, b *Session) int { return cmp.Compare(a.Commands, b.Commands) },
	"in_flight":  func(a, b *Session) int { return cmp.Compare(a.InFlight, b.InFlight) },
	"place":      func(a, b *Session) int { return strings.Compare(a.Place, b.Place) },
	"generation": func(a, b *Session) int { return cmp.Compare(a.Generation, b.Generation) },
}

// compareEnds puts a certificate without an end last.
func compareEnds(a, b *time.Time) int {
	switch {
	case a != nil && b != nil:
		return a.Compare(*b)
	case a != nil:
		return -1
	case b != nil:
		return 1
	}
	return 0
}

// SortKeys returns what Query.Sort may be.
func SortKeys() []string { return slices.Sorted(maps.Keys(sortKeys)) }

// ParseQuery reads the parameters identity, filter, sort (with "-" in front: descending), page and limit. Others are ignored. The error
// says what is accepted.
func ParseQuery(v url.Values) (Query, error) {
	q := Query{Identity: v.Get("identity"), Filter: v.Get("filter"), Sort: "identity", Page: 1, Limit: defaultLimit}
	if by := v.Get("sort"); by != "" {
		q.Sort, q.Descending = strings.CutPrefix(by, "-")
		if sortKeys[q.Sort] == nil {
			return q, fmt.Errorf("sort: one of %s, with \"-\" in front for descending", strings.Join(SortKeys(), ", "))
		}
	}
	var err error
	if q.Page, err = number(v.Get("page"), q.Page, 1<<30); err != nil {
		return q, fmt.Errorf("page: %w", err)
	}
	if q.Limit, err = number(v.Get("limit"), q.Limit, maxLimit); err != nil {
		return q, fmt.Errorf("limit: %w", err)
	}
	return q, nil
}

// number reads a number from 1 to most, or returns preset for an empty text.
func number(text string, preset, most int) (int, error) {
	if text == "" {
		return preset, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return preset, fmt.Errorf("a number from 1 to %d", most)
	}
	return n, nil
}

// Values returns the parameters that ParseQuery reads q from, without those that have their defaults.
func (q Query) Values() url.Values {
	v := url.Values{}
	set := func(key, value string, when bool) {
		if when {
			v.Set(key, value)
		}
	}
	by := q.Sort
	if q.Descending {
		by = "-" + by
	}
	set("identity", q.Identity, q.Identity != "")
	set("filter", q.Filter, q.Filter != "")
	set("sort", by, by != "identity")
	set("page", strconv.Itoa(q.Page), q.Page != 1)
	set("limit", strconv.Itoa(q.Limit), q.Limit != defaultLimit)
	return v
}

func (q Query) asksFor(s *Session) bool {
	if !contains(s.Identity, q.Identity) {
		return false
	}
	for _, text := range []string{s.Identity, s.Subject, s.Serial, s.Address, s.User, s.Library} {
		if contains(text, q.Filter) {
			return true
		}
	}
	return false
}

// contains reports whether part, in lower or upper case, is in text.
func contains(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

// Select returns the page of all that q asks for. It sorts all in place. A page beyond the last one is the last one.
func (q Query) Select(all []Session) Sessions {
	out := Sessions{Total: len(all)}
	all = slices.DeleteFunc(all, func(s Session) bool { return !q.asksFor(&s) })
	rows := make([]*Session, len(all))
	for i := range all {
		rows[i] = &all[i]
	}
	by, sign := sortKeys[q.Sort], 1
	if q.Descending {
		sign = -1
	}
	slices.SortFunc(rows, func(a, b *Session) int { return cmp.Or(sign*by(a, b), cmp.Compare(a.ID, b.ID)) })
	out.Matched, out.Pages = len(rows), max(1, (len(rows)+q.Limit-1)/q.Limit)
	q.Page = min(q.Page, out.Pages)
	out.Page, out.Query = q.Page, q
	rows = rows[min(len(rows), (q.Page-1)*q.Limit):min(len(rows), q.Page*q.Limit)]
	out.List = make([]Session, len(rows))
	for i, row := range rows {
		out.List[i] = *row
	}
	return out
}
