package backend

import (
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
)

// ailmentInterval is the minimum time between two lines of the log about one ailment, unless its cause is a new one.
const ailmentInterval = 30 * time.Second

// maxAilments is how many ailments are told in ailmentInterval, of a backend that comes and goes.
const maxAilments = 3

// ailment is the time through which the backend does not serve as it should, as the prober sees it: an outage, or a time of loading. The
// log tells of its begin, of each cause once, of its length every ailmentInterval, and of its end. The prober's goroutine owns it.
type ailment struct {
	probed time.Time     // when the last probe began
	since  time.Time     // when the first one began that was not answered well; zero: the backend is well
	tries  int           // probes since then
	told   []string      // reasons that have a line in the log; there are as many as faults
	next   clock.Instant // no line is due before then
	spoken bool          // the log has said once that the backend answers
	shown  bool          // the log has told of this ailment

	windowEnd clock.Instant // until then, only maxAilments are told
	begun     int           // ailments that have begun in this window
}

// ill takes over a probe that failed, or found the backend busy, and returns what Ready is to say.
func (a *ailment) ill(b *Backend, err error, level zerolog.Level) *Readiness {
	now := b.c.Now()
	if a.since.IsZero() {
		a.since = a.probed
		if now >= a.windowEnd {
			a.windowEnd, a.begun = now.Add(ailmentInterval), 0
		}
		if a.begun++; a.begun <= maxAilments {
			a.told = nil
		}
	}
	a.tries++
	f, text, url := Explain(err), Printable(err.Error()), b.URL()
	if url != "" {
		url += " "
	}
	if fresh := !slices.Contains(a.told, f.Reason); fresh || now >= a.next {
		if fresh {
			a.told = append(a.told, f.Reason)
		}
		a.next, a.shown = now.Add(ailmentInterval), true
		line := b.about(b.c.Log.WithLevel(level)).Str("reason", f.Reason).Str("error", text).Time("since", a.since).Int("tries", a.tries)
		if d := time.Since(a.since); a.tries > 1 {
			line = line.Str("for", d.Round(time.Second).String())
		}
		line.Str("cure", f.Cure).Msg(f.Line)
	}
	detail := fmt.Sprintf("%s; %s (%ssince %s, tries: %d): %s", f.Line, f.Cure, url, a.since.Format(time.RFC3339), a.tries, text)
	return &Readiness{OK: level != zerolog.ErrorLevel, Reason: f.Reason, Detail: detail}
}

// well takes over a probe that was answered, and returns what Ready is to say; nil: nothing.
func (a *ailment) well(b *Backend, heard answer) *Readiness {
	if heard.busy != nil {
		return a.ill(b, heard.busy, zerolog.WarnLevel)
	}
	ended := *a
	a.since, a.tries, a.spoken, a.shown = time.Time{}, 0, true, false
	if ended.spoken && !ended.shown {
		return nil
	}
	line := b.about(b.c.Log.Info())
	if !ended.since.IsZero() {
		line = line.Time("since", ended.since).Str("lasted", time.Since(ended.since).Round(time.Millisecond).String()).Int("tries", ended.tries)
	}
	if heard.isNoAuth && !b.proberLogin().Mapped {
		line = line.Str("note", "it wants a password, and none is configured: clients have to authenticate themselves")
	}
	line.Msg("backend answers")
	return nil
}

// about adds to a line of the log which backend it is about: as it is configured, and where that leads to.
func (b *Backend) about(line *zerolog.Event) *zerolog.Event {
	network, target, err := b.c.Target()
	if err != nil {
		return line
	}
	line = line.Str("backend", b.URL())
	if at := b.currentAddress(target); network == "tcp" && at != target {
		line = line.Str("address", at)
	}
	return line
}
