package backend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// The log tells of the begin of an outage, of each cause once, of its length every ailmentInterval, and of its end, however often the
// prober tries and however the causes alternate.
func TestAnOutageIsToldOnceAndThenNowAndThen(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	var now clock.Atomic
	pass := func(d time.Duration) { now.Store(now.Load().Add(d)) }
	b := New(Config{
		Buffers: netio.NewBuffers(0), Log: zerolog.New(&logs), Now: func() clock.Instant { return now.Load().Add(1) },
		Target: func() (string, string, error) { return "tcp", "cache:6379", nil },
	})
	a := ailment{probed: time.Now()}
	said := func(want ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(logs.String()) {
			var f map[string]any
			if err := json.Unmarshal([]byte(line), &f); err != nil || f["backend"] != "redis://cache:6379" {
				t.Errorf("%v in %s", err, line)
			}
			got = append(got, fmt.Sprint(f["level"], " ", f["reason"], " ", f["tries"]))
		}
		logs.Reset()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	refused, reset := error(syscall.ECONNREFUSED), error(syscall.ECONNRESET)
	b.note(&a, answer{}, nil)
	b.note(&a, answer{}, nil)
	said("info <nil> <nil>")

	b.note(&a, answer{}, refused)
	said("error refused 1")
	for range 9 {
		b.note(&a, answer{}, refused)
		b.note(&a, answer{}, reset)
	}
	said("error closed 3")
	pass(ailmentInterval)
	b.note(&a, answer{}, refused)
	b.note(&a, answer{}, reset)
	said("error refused 20")
	if r := b.Ready(); r.OK || r.Reason != "closed" || !strings.Contains(r.Detail, "tries: 21") {
		t.Errorf("%+v", r)
	}
	b.note(&a, answer{busy: ErrBusy}, nil)
	b.note(&a, answer{busy: ErrBusy}, nil)
	said("warn loading 22")
	if r := b.Ready(); !r.OK || r.Reason != "loading" || !strings.Contains(r.Detail, "cache:6379") {
		t.Errorf("%+v", r)
	}
	b.note(&a, answer{}, nil)
	said("info <nil> 23")
	if r := b.Ready(); r != (Readiness{OK: true}) {
		t.Errorf("%+v", r)
	}
	b.note(&a, answer{}, refused)
	said("error refused 1")

	pass(probeFresh)
	b.ailing.Store(nil)
	if r := b.Ready(); r.OK || r.Reason != "silent" {
		t.Errorf("a prober that waits for an answer: %+v", r)
	}
}

// What a peer says is bounded and cannot steer a terminal, and of an answer to AUTH no more is told than a word that backends have.
func TestWhatTheBackendSaysIsBoundedAndClean(t *testing.T) {
	t.Parallel()
	if got := Printable("a\x1b[31m\u202eb\xff\r\n"); got != "a?[31m?b???" {
		t.Errorf("got %q", got)
	}
	if got := Printable(strings.Repeat("x", 10000)); len(got) > maxText+3 {
		t.Errorf("%d bytes", len(got))
	}
	for line, want := range map[string]string{
		"WRONGPASS invalid username-password pair": "WRONGPASS", "SECRET": "by another error", "": "by another error", "ERR unknown command 'AUTH', with args beginning with: 'secret'": "ERR",
	} {
		err := refusal(ErrAuth, "AUTH", []byte("-"+line+"\r\n"))
		if got := err.Error(); !errors.Is(err, ErrAuth) || !strings.HasSuffix(got, "AUTH was answered "+want) {
			t.Errorf("%q: got %q", line, got)
		}
	}
}

// A backend that answers every other second does not fill the log.
func TestABackendThatComesAndGoesIsToldNowAndThen(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	var now clock.Atomic
	b := New(Config{
		Buffers: netio.NewBuffers(0), Log: zerolog.New(&logs), Now: func() clock.Instant { return now.Load().Add(1) },
		Target: func() (string, string, error) { return "tcp", "cache:6379", nil },
	})
	a := ailment{probed: time.Now(), spoken: true}
	for range int(3 * ailmentInterval / (2 * time.Second)) {
		b.note(&a, answer{}, syscall.ECONNREFUSED)
		now.Store(now.Load().Add(time.Second))
		b.note(&a, answer{}, nil)
		now.Store(now.Load().Add(time.Second))
	}
	if failed, answers := strings.Count(logs.String(), `"level":"error"`), strings.Count(logs.String(), "backend answers"); failed != 3*maxAilments || answers != 3*maxAilments {
		t.Errorf("%d lines of failures and %d of answers in three intervals:\n%s", failed, answers, &logs)
	}
}
