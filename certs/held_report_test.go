package certs

import (
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dragontls/certs/pki"
)

// lines returns the lines of the log with a message.
func (b *logBuffer) lines(message string) []map[string]any {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []map[string]any
	for line := range strings.Lines(b.buf.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["message"] == message {
			found = append(found, fields)
		}
	}
	return found
}

func TestAReloadLogsItsOwnFile(t *testing.T) {
	f := newFixture(t)
	f.withCRL(f.revoking(f.ca))
	f.write("password", []byte("secret\n"))
	f.write("users.yaml", []byte(usersOfTwo))
	f.opts.Login.UsersFile = f.path("users.yaml")
	s := f.open()
	for _, c := range []struct {
		file, message string
		content       []byte
		fields        map[string]any
	}{
		{"ca.crl", crlReloaded, f.revoking(f.ca, f.client), map[string]any{"source": "crl", "entries": 1.0, "crls": 1.0, "trust_changed": true, "in_part": false}},
		{"users.yaml", usersReloaded, []byte("# a comment\n" + usersOfTwo), map[string]any{"source": "users", "rules": 2.0, "trust_changed": false}},
	} {
		f.write(c.file, c.content)
		f.reload(s)
		lines := f.log.lines(c.message)
		if len(lines) != 1 || lines[0]["file"] != f.path(c.file) || f.log.count("reloaded") != 1 {
			t.Fatalf("%s: logged %v", c.file, f.log.buf.String())
		}
		for field, want := range c.fields {
			if lines[0][field] != want {
				t.Errorf("%s: %s is %v, want %v", c.file, field, lines[0][field], want)
			}
		}
		f.log.buf.Reset()
	}
	// What is wrong with it is logged with all faults.
	f.write("ca.crl", slices.Concat(damagedCRL(f.revoking(f.ca)), f.extended(oidDelta, true, []byte{2, 1, 1})))
	f.write("users.yaml", []byte("users:\n  - {match: ['cm:a'], user: a, password_file: password}\n  - {match: ['cn:b'], user: b, password_file: missing}\n"))
	if _, err := s.Reload(); err == nil {
		t.Fatal("no fault")
	}
	for message, parts := range map[string][]string{
		crlRefused:   {`"file":"` + f.path("ca.crl") + `"`, "CRL 1: its signature", "CRL 2: it is a delta CRL"},
		usersRefused: {`"file":"` + f.path("users.yaml") + `"`, `pattern \"cm:a\"`, `user \"b\"`},
	} {
		lines := f.log.lines(message)
		if len(lines) != 1 {
			t.Fatalf("%d lines %q, want 1:\n%s", len(lines), message, f.log.buf.String())
		}
		text, err := json.Marshal(lines[0])
		f.must(err)
		for _, part := range parts {
			if !strings.Contains(string(text), part) {
				t.Errorf("%q is missing in %s", part, text)
			}
		}
	}
}

func TestASourceThatIsHeldBackIsLoggedEveryHour(t *testing.T) {
	f := newFixture(t)
	start := time.Now()
	var ahead atomic.Int64 // nanoseconds
	f.opts.clock = func() time.Time { return start.Add(time.Duration(ahead.Load())) }
	f.opts.Login.AllowFile = f.path("allow")
	f.write("allow", []byte("cn:*\n"))
	s := f.open()
	after := func(d time.Duration, logged int) {
		t.Helper()
		ahead.Store(int64(d))
		_, _ = s.files.Reload(false)
		if got := len(f.log.lines(allowRefused)); got != logged {
			t.Errorf("after %v: logged %d times, want %d", d, got, logged)
		}
	}
	f.write("allow", []byte("cm:*\n"))
	after(0, 1)
	after(59*time.Minute, 1)
	after(time.Hour, 2)
	after(119*time.Minute, 2)
	f.write("allow", []byte("cm:*\ndm:*\n")) // another fault
	after(119*time.Minute, 3)
	after(120*time.Minute, 3)
	after(179*time.Minute, 4)
	if n := s.Stats().ReloadsFailed[ReasonAllow]; n != 2 {
		t.Errorf("counted %d times, want each fault once", n)
	}
	held := s.Held()
	if len(held) != 1 || held[0].Name != "allow" || !held[0].Since.Equal(start) {
		t.Fatalf("held back: %+v", held)
	}
	if fault := held[0].Fault(); fault.File != f.path("allow") || fault.Reason != ReasonAllow {
		t.Errorf("fault %+v", fault)
	}
	f.write("allow", []byte("cn:*\n"))
	after(180*time.Minute, 4)
	if len(s.Held()) > 0 || f.log.count("hold what is in use") != 1 {
		t.Errorf("held back: %+v; log:\n%s", s.Held(), f.log.buf.String())
	}
}

// Whoever reads that a certificate ends soon learns that its successor is there and why it is not served.
func TestEndsSoonSaysWhatHoldsTheNextPairBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writeServer("server", 30*daily)
		s := f.open()
		until := f.watchExpiry(ExpiryOptions{Store: s, Warning: 10 * daily})
		if got := until(20 * daily); len(got) != 1 || got[0].OnDisk != "" {
			t.Fatalf("spoke of %+v", got)
		}
		next := f.issue(f.ca, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true, NotBefore: time.Now(), NotAfter: time.Now().Add(90 * daily)})
		f.write("server.crt", next.cert)
		_, _ = s.files.Reload(false)
		since := time.Now().UTC().Format(time.RFC3339)
		got := until(21 * daily)
		if len(got) != 1 {
			t.Fatalf("spoke of %+v", got)
		}
		for _, part := range []string{"a newer one", "ends on " + time.Now().Add(89*daily).UTC().Format(time.RFC3339), "since " + since, "the key belongs to another certificate"} {
			if !strings.Contains(got[0].OnDisk, part) {
				t.Errorf("%q is missing in %q", part, got[0].OnDisk)
			}
		}
		if f.log.count(`"on_disk":"a newer one`) != 1 {
			t.Errorf("log:\n%s", f.log.buf.String())
		}
		f.write("server.crt", nil)
		_, _ = s.files.Reload(false)
		if got := until(22 * daily); len(got) != 1 || strings.Contains(got[0].OnDisk, "newer") || !strings.Contains(got[0].OnDisk, "cannot be used") {
			t.Errorf("spoke of %+v", got)
		}
		f.write("server.key", next.key)
		f.write("server.crt", next.cert)
		f.reload(s)
		f.wantSpoken(until(40*daily), "")
	})
}

// The same holds for a CRL.
func TestEndsSoonSaysWhatHoldsTheNextCRLBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writeServer("server", 365*daily)
		other := newCA(t, "other")
		f.write("ca.crt", slices.Concat(f.ca.PEM(), other.PEM()))
		now := time.Now()
		list := func(ca *pki.CA, days time.Duration) []byte {
			return f.crl(ca, pki.CRLOptions{ThisUpdate: now, NextUpdate: now.Add(days * daily)})
		}
		f.withCRL(slices.Concat(list(f.ca, 30), list(other, 3)))
		s := f.open()
		f.write("ca.crl", slices.Concat(damagedCRL(list(other, 60)), list(f.ca, 40)))
		_, _ = s.files.Reload(false)
		got := f.watchExpiry(ExpiryOptions{Store: s, Warning: daily})(2 * daily)
		if len(got) != 1 || !strings.Contains(got[0].OnDisk, "a newer one") || !strings.Contains(got[0].OnDisk, "signature") {
			t.Errorf("spoke of %+v", got)
		}
	})
}
