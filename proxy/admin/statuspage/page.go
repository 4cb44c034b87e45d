package statuspage

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"strings"
	"time"
)

// What the page is made of. style and script stand in the page itself, which loads nothing.
var (
	//go:embed page.css
	style string
	//go:embed page.js
	script string
	//go:embed page.html
	pageText string

	page = template.Must(template.New("page").Funcs(functions).Parse(pageText))
)

// Policy is the Content-Security-Policy of the page: nothing runs or is loaded but what is in it, and it talks to its own address only.
func Policy() string {
	return "default-src 'none'; style-src " + hash(style) + "; script-src " + hash(script) +
		"; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// view is what the template shows.
type view struct {
	*Status
	Style   template.CSS
	Script  template.JS
	Charts  []chart
	Columns []column
	Pager   pager
}

// column is one of the table of sessions.
type column struct {
	Title  string
	Number bool
	Link   string // sorts by it, or in the other direction if that is so already
	Order  string // ascending or descending if the table is sorted by it, and empty otherwise
}

var columns = []struct {
	key, title string
	descends   bool // the first click sorts in descending order; but for age, these are numbers
}{
	{"identity", "Identity", false}, {"subject", "Subject", false}, {"serial", "Serial", false}, {"not_after", "Certificate ends", false},
	{"address", "Address", false}, {"user", "User", false}, {"library", "Library", false}, {"tls", "TLS", false}, {"age", "Age", true},
	{"commands", "Commands", true}, {"in_flight", "In flight", true}, {"place", "Connection", false}, {"generation", "Trust", true},
}

func columnsOf(q Query) []column {
	out := make([]column, len(columns))
	for i, c := range columns {
		next := q
		next.Sort, next.Descending, next.Page = c.key, c.descends, 1
		out[i].Title, out[i].Number = c.title, c.descends && c.key != "age"
		if q.Sort == c.key {
			next.Descending = !q.Descending
			out[i].Order = "ascending"
			if q.Descending {
				out[i].Order = "descending"
			}
		}
		out[i].Link = link(next)
	}
	return out
}

// pager leads to the other pages of the table of sessions. An empty link leads nowhere.
type pager struct{ First, Previous, Next, Last string }

func pagerOf(s *Sessions) (p pager) {
	at := func(n int) string {
		q := s.Query
		q.Page = n
		return link(q)
	}
	if s.Page > 1 {
		p.First, p.Previous = at(1), at(s.Page-1)
	}
	if s.Page < s.Pages {
		p.Next, p.Last = at(s.Page+1), at(s.Pages)
	}
	return p
}

func link(q Query) string { return "?" + q.Values().Encode() + "#sessions" }

// WritePage writes the page. Whatever s says is escaped.
func WritePage(w io.Writer, s *Status) error {
	return page.Execute(w, view{
		Status: s, Style: template.CSS(style), Script: template.JS(script), // both are ours
		Charts: charts(&s.History), Columns: columnsOf(s.Sessions.Query), Pager: pagerOf(&s.Sessions),
	})
}

// functions are those that the template calls.
var functions = template.FuncMap{
	"count": count, "seconds": seconds, "lifeBar": lifeBar, "limitBar": limitBar, "total": total,
	"roughly":  roughly,
	"uptime":   func(s int64) string { return roughly(time.Duration(s) * time.Second) },
	"days":     days,
	"when":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"percent":  func(l Limit) int { return int(100 * l.Share()) },
	"amount":   amount,
	"words":    func(s string) string { return strings.ReplaceAll(s, "_", " ") },
	"sortedBy": func(q Query) string { return q.Values().Get("sort") },
}

// days words how long something is still valid.
func days(left float64) string {
	d := time.Duration(left * 24 * float64(time.Hour))
	if d < 0 {
		return "ended " + roughly(-d) + " ago"
	}
	return roughly(d) + " left"
}

// amount words a value of a limit: bytes, or a number.
func amount(of string, n *int64) string {
	switch {
	case n == nil:
		return "–"
	case strings.HasPrefix(of, "memory"):
		return bytes(float64(*n))
	}
	return count(float64(*n))
}

func total(counts map[string]uint64) (n uint64) {
	for _, one := range counts {
		n += one
	}
	return n
}
