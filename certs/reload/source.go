package reload

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// heldRepeat is how often the log says again that a source is still held back.
const heldRepeat = time.Hour

// Source is one or more files that make sense only together, such as a certificate and its key. Its
// owner keeps what it held last that was good, and takes it into use apart from all other sources.
type Source struct {
	Name  string   // a word for the log and the metrics
	Files []string // the file that names the source to people comes first
	// Reloaded and Refused are the messages of the log for content that was taken into use and for
	// content that was not.
	Reloaded, Refused string
}

// Change is a source whose content was taken into use.
type Change struct {
	*Source
	// Describe adds to a line of the log what the source holds now.
	Describe func(*zerolog.Event)
}

// Held is a source whose files hold something that was not taken into use.
type Held struct {
	*Source
	Err  error     // every fault, each a *Fault where it concerns a file
	Ends time.Time // the end of validity of what the files hold; zero: unknown, or it has none
	// Since is when the source was held back first; Files sets it.
	Since time.Time
}

// Fault returns the first fault, with a file in any case.
func (h *Held) Fault() Fault {
	f := Fault{Reason: ReasonParse, Err: h.Err}
	if first, ok := errors.AsType[*Fault](h.Err); ok {
		f = *first
	}
	if f.File == "" && len(h.Files) > 0 {
		f.File = h.Files[0]
	}
	return f
}

// Outcome is what the owner made of one reading of the files.
type Outcome struct {
	Changes []Change // none: what is in use stays
	Held    []Held   // none: all files hold what is in use
}

// Err returns the faults of all sources that are held back.
func (o *Outcome) Err() error {
	var all []error
	for _, h := range o.Held {
		all = append(all, list(h.Err)...)
	}
	return errors.Join(all...)
}

// holding is what Files remembers of a source that is held back.
type holding struct {
	Held
	content [32]byte  // of its files
	text    string    // of its faults
	logged  time.Time // when it was logged last
}

// hold remembers what is held back after a reload, and logs and counts what is new about it. It returns the new
// faults, and whether the last one is over. The caller has the turn.
func (f *Files) hold(o Outcome, c Contents, forced bool) (news []error, over bool) {
	now := f.Clock()
	before, held := f.held, make(map[*Source]holding, len(o.Held))
	for _, h := range o.Held {
		next := holding{Held: h, content: c.Sum(h.Files...), text: causes(h.Err), logged: now}
		next.Since = now
		last, failing := before[h.Source]
		known := failing && last.content == next.content && last.text == next.text
		if failing {
			next.Since = last.Since
		}
		if known && !forced && now.Sub(last.logged) < heldRepeat {
			next.logged = last.logged
		} else {
			faultFields(f.Log.Warn(), &next.Held).Msg(h.Refused)
		}
		if !known || forced {
			f.count(func(s *Stats) { s.ReloadsFailed[reasonOf(h.Err)]++ })
		}
		if !known {
			news = append(news, list(h.Err)...)
		}
		held[h.Source] = next
	}
	f.mu.Lock()
	f.held = held
	f.mu.Unlock()
	f.logHealed(before, o)
	return news, len(before) > 0 && len(held) == 0
}

// logHealed logs each source that was held back before and whose files now hold again what is in use.
func (f *Files) logHealed(before map[*Source]holding, o Outcome) {
	for source := range before {
		changed := slices.ContainsFunc(o.Changes, func(c Change) bool { return c.Source == source })
		if _, still := f.held[source]; !still && !changed {
			f.Log.Info().Str("source", source.Name).Strs("files", source.Files).Msg("certificate files are good again: they hold what is in use")
		}
	}
}

// Held returns the sources that are held back now, in the order of their names and files.
func (f *Files) Held() []Held {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Held
	for _, h := range slices.SortedFunc(maps.Values(f.held), func(a, b holding) int {
		return slices.Compare(append([]string{a.Name}, a.Files...), append([]string{b.Name}, b.Files...))
	}) {
		all = append(all, h.Held)
	}
	return all
}
