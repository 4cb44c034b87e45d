package certs

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/reload"
)

// resumer is a client that keeps its tickets.
func (f *fixture) resumer(version uint16) *tls.Config {
	c := f.clientConfig()
	c.MinVersion, c.MaxVersion = version, version
	c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return c
}

func (f *fixture) wantResumed(addr string, config *tls.Config, want bool, when string) {
	f.t.Helper()
	if got := f.dial(addr, config).DidResume; got != want {
		f.t.Errorf("%s: resumed %v, want %v", when, got, want)
	}
}

func eachVersion(t *testing.T, test func(*testing.T, uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { test(t, version) })
	}
}

func TestResumptionSurvivesALeafAndEndsWithACA(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		s := f.open()
		addr := f.serve(s.TLSConfig())
		client := f.resumer(version)
		f.wantResumed(addr, client, false, "first")
		f.wantResumed(addr, client, true, "second")
		f.writePair("server", f.pair())
		if changed, err := s.Reload(); !changed || err != nil {
			t.Fatal(changed, err)
		}
		f.wantResumed(addr, client, true, "after a new leaf")
		other := newCA(t, "next")
		f.write("ca.crt", slices.Concat(f.ca.PEM(), other.PEM()))
		if changed, err := s.Reload(); !changed || err != nil {
			t.Fatal(changed, err)
		}
		f.wantResumed(addr, client, false, "after a CA was added")
		f.wantResumed(addr, client, true, "again")
		f.write("ca.crt", other.PEM())
		if _, err := s.Reload(); err != nil {
			t.Fatal(err)
		}
		if _, err := dial(addr, client); err == nil {
			t.Error("the removed CA's client came in")
		}
	})
}

func TestStoresWithTheSameTicketKeysFileResumeEachOther(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		master := bytes.Repeat([]byte("0123456789abcdef"), 2)
		f.write("ticket", []byte(hex.EncodeToString(master)+"\n"))
		f.opts.TicketKeysFile = f.path("ticket")
		one := f.serve(f.open().TLSConfig())
		f.write("ticket", []byte(base64.StdEncoding.EncodeToString(master)))
		s := f.open()
		two := f.serve(s.TLSConfig())
		client := f.resumer(version)
		f.wantResumed(one, client, false, "first")
		f.wantResumed(two, client, true, "at the other")
		f.write("ticket", bytes.Repeat([]byte("fedcba9876543210"), 4))
		if changed, err := s.Reload(); !changed || err != nil {
			t.Fatal(changed, err)
		}
		f.wantResumed(two, client, false, "with another master")
		f.opts.TicketKeysFile = ""
		f.wantResumed(f.serve(f.open().TLSConfig()), client, false, "with a random master")
	})
}

func TestTicketKeysLiveTwoDays(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		now := time.Now()
		var days atomic.Int64
		f.opts.clock = func() time.Time { return now.Add(time.Duration(days.Load()) * 24 * time.Hour) }
		s := f.open()
		addr := f.serve(s.TLSConfig())
		old := f.resumer(version)
		f.wantResumed(addr, old, false, "first")
		first := s.Snapshot()
		days.Store(1)
		f.watch(s, 5*time.Millisecond)
		f.eventually("a new day's keys", func() bool { return s.Snapshot() != first })
		if got := s.Snapshot(); got.Generation != first.Generation || got.config == first.config {
			t.Error("want the same generation with another config")
		}
		session, _ := old.ClientSessionCache.Get("localhost")
		f.wantResumed(addr, old, true, "a day later")
		old.ClientSessionCache.Put("localhost", session) // the ticket of the first day
		second := s.Snapshot()
		days.Store(2)
		f.eventually("the next day's keys", func() bool { return s.Snapshot() != second })
		f.wantResumed(addr, old, false, "two days later")
	})
}

func TestClientAuthIsPartOfTheTrust(t *testing.T) {
	f := newFixture(t)
	strict := f.open().Snapshot().Trust
	f.opts.ClientAuth = tls.VerifyClientCertIfGiven
	if f.open().Snapshot().Trust == strict {
		t.Error("same trust with optional client certificates")
	}
}

func TestMasterSecretForms(t *testing.T) {
	raw := []byte("\x00\x01 raw bytes, the last is a blank\n")
	tests := []struct {
		name string
		file []byte
		want []byte // nil: refused
	}{
		{"hex", []byte(hex.EncodeToString(raw) + "\r\n"), raw},
		{"base64", []byte(base64.StdEncoding.EncodeToString(raw) + "\n"), raw},
		{"base64 without padding", []byte(base64.RawStdEncoding.EncodeToString(raw)), raw},
		{"raw", raw, raw},
		{"text", []byte("  correct horse battery staple, and more\n"), []byte("correct horse battery staple, and more")},
		{"16 bytes of hex", []byte("00112233445566778899aabbccddeeff"), nil},
		{"short", []byte("secret"), nil},
		{"empty", nil, nil},
		{"zeros", make([]byte, 64), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := reload.Contents{"f": {Data: test.file}}
			got, err := parseMaster(c, "f")
			if !bytes.Equal(got, test.want) || (err == nil) != (test.want != nil) {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}
