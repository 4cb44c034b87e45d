package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"

	"dragontls/proxy/admin/statuspage"
)

func TestPick(t *testing.T) {
	for _, tt := range []struct {
		word, identity, address string
		want                    bool
	}{
		{"cn:web-1", "cn:web-1", "10.0.0.1:5", true},
		{"cn:web-1", "cn:web-10", "10.0.0.1:5", false},
		{"cn:web-*", "cn:web-10", "10.0.0.1:5", true},
		{"cn:web-*", "dns:cn:web-1", "10.0.0.1:5", false},
		{"dns:*.apps.internal", "dns:a.apps.internal", "10.0.0.1:5", true},
		{"*", "", "10.0.0.1:5", true},
		{"10.0.0.1", "x", "10.0.0.1:5", true},
		{"10.0.0.1", "x", "10.0.0.10:5", false},
		{"10.0.0.1:5", "x", "10.0.0.1:5", true},
		{"10.0.0.1:5", "x", "10.0.0.1:50", false},
		{"10.0.0.0/8", "x", "10.200.0.1:5", true},
		{"10.0.0.0/8", "x", "11.0.0.1:5", false},
		{"::1", "x", "[::1]:5", true},
		{"[::1]:5", "x", "[::1]:5", true},
		{"fd00::/8", "x", "[fd00::1]:5", true},
		{"10.0.0.1", "x", "[::ffff:10.0.0.1]:5", true},
		{"10.0.0.1", "x", "", false},
	} {
		pattern, address := tt.word, ""
		if isAddress(tt.word) {
			pattern, address = "", tt.word
		}
		p, err := newPick(pattern, address)
		if err != nil {
			t.Errorf("%s: %v", tt.word, err)
		} else if got := p(tt.identity, tt.address); got != tt.want {
			t.Errorf("%s: got %v for %q from %s", tt.word, got, tt.identity, tt.address)
		}
	}
	for _, tt := range [][2]string{{"web-1", ""}, {":x", ""}, {"", "here"}, {"", "10.0.0.0/33"}, {"", "10.0.0.1:x"}} {
		if _, err := newPick(tt[0], tt[1]); err == nil {
			t.Errorf("%q is understood", tt)
		}
	}
}

// What clients, certificates and files have chosen never steers the terminal.
func TestStatusIsPrintable(t *testing.T) {
	const evil = "a\x1b[2Jb\u202ec\rd\ne\tf\u009bg"
	now := time.Now()
	st := &statuspage.Status{Backend: statuspage.Backend{URL: evil}}
	st.Reason, st.Version, st.Time = evil, evil, now
	st.Problems = []statuspage.Problem{{Severity: evil, What: evil, Cure: evil}}
	st.Certificates = []statuspage.Certificate{{Role: evil, File: evil, Subject: evil}}
	st.CRLs = []statuspage.CRL{{File: evil, Issuer: evil}}
	st.Events = []statuspage.Event{{Kind: evil, Reason: evil, Last: now, Client: evil, Address: evil, File: evil, Error: evil, Cure: evil}}
	st.Latency = []statuspage.Latency{{Path: evil}}
	st.Limits = []statuspage.Limit{{Name: evil, Reached: 1}}
	var b bytes.Buffer
	if err := writeStatus(&b, st); err != nil {
		t.Fatal(err)
	}
	if err := writeSessions(&b, []statuspage.Session{{Identity: evil, Address: evil, User: evil, Library: evil, LibraryVersion: evil, TLSVersion: evil, Place: evil, Since: now}}, now); err != nil {
		t.Fatal(err)
	}
	if strings.Count(b.String(), "a?[2Jb?c?d e?f?g") < 20 {
		t.Errorf("got %s", b.String())
	}
	for _, r := range b.String() {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U is printed", r)
		}
	}
}
