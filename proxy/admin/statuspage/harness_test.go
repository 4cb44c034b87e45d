package statuspage

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// at is a fixed time: what a page shows must not depend on when it is tested.
var at = time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)

func query(t testing.TB, text string) Query {
	t.Helper()
	v, err := url.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ParseQuery(v)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// sessions are n that all differ.
func sessions(n int) []Session {
	all := make([]Session, n)
	for i := range all {
		ends := at.Add(time.Duration(i) * time.Hour)
		all[i] = Session{
			ID: uint64(i + 1), Identity: fmt.Sprintf("uri:spiffe://prod/sa/web-%d", i%97), Subject: fmt.Sprintf("CN=web-%d,O=Example", i%97),
			Serial: fmt.Sprintf("%032x", i), NotAfter: &ends, Address: fmt.Sprintf("10.0.%d.%d:40000", i/250, i%250), User: "web",
			Library: "redis-py", LibraryVersion: "5.0", TLSVersion: "1.3", Since: at.Add(-time.Duration(i) * time.Minute),
			Commands: uint64(i * 3), InFlight: i % 2, Place: "lane", Generation: 7,
		}
	}
	return all
}

// full is a Status in which everything is set, with n sessions.
func full(q Query, n int) *Status {
	share := func(i int64) *int64 { return &i }
	three, since := 3, at.Add(-time.Hour)
	var h History
	for i := range maxSamples + 20 {
		c := uint64(i * 1000)
		h.Add(Sample{Time: at.Add(time.Duration(i-maxSamples-20) * SampleInterval), Connections: n, Commands: c, Handshakes: c / 100,
			Seconds: map[string]Durations{"lane": {[]float64{.001, .01}, []uint64{c, c / 10, 0}}, "own": {[]float64{.001, .01}, []uint64{c / 5, 0, 0}}}})
	}
	s := &Status{
		About:   About{Schema, "v1", "go1", at, 3600},
		Health:  Health{Ready: true, Problems: []Problem{{SeverityWarning, "something is wrong", "mend it"}}},
		Traffic: Traffic{Connections: Connections{n, 1}},
		Ends: Ends{SessionsClosed: map[string]uint64{"quit": 1}, Handshakes: []Handshake{{"ok", "1.3", true, 4}},
			Events: []Event{{EventRefused, "unknown_ca", at, at, 1, "10.0.0.1", "CN=x", "7", "", "not verified", "a cause", "a cure"}}},
		Trusted: Trusted{
			Certificates: []Certificate{{"server", "/tls.crt", "CN=server", "1a", "ff", at.Add(-time.Hour), at.Add(time.Hour), 1. / 24, &three}},
			CRLs:         []CRL{{"/ca.crl", "CN=ca", at.Add(-time.Hour), at.Add(time.Hour), 1. / 24, 3, true}},
			Trust:        Trust{7, map[uint64]int{7: n}, &since},
			Reloads:      map[string]Reload{"listener": {1, 2, map[string]uint64{"parse": 1}, at, false, "events", []HeldSource{{"allow", "/allow", "allow", "line 2", "correct it", at}}}},
		},
		Backend:  Backend{"redis://db:6379", "10.9.9.9:6379", true, &since, .0002, 3, 1, map[string]uint64{"lost": 2, "refused": 1}},
		Limits:   []Limit{{"max_connections", "MAX_CONNECTIONS", share(10), share(9), 1}, {"memory_limit", "MEMORY_LIMIT", nil, nil, 0}},
		Sessions: q.Select(sessions(n)),
	}
	h.Fill(&s.Traffic)
	return s
}

// pageOf returns the page of s, parsed as a browser does.
func pageOf(t *testing.T, s *Status) (text string, root *html.Node) {
	t.Helper()
	var b strings.Builder
	if err := WritePage(&b, s); err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), root
}

// each calls f with every element.
func each(n *html.Node, f func(*html.Node)) {
	if n.Type == html.ElementNode {
		f(n)
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		each(c, f)
	}
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// words returns the text in n, with single blanks.
func words(n *html.Node) string {
	var b strings.Builder
	var add func(*html.Node)
	add = func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data + " ")
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			add(c)
		}
	}
	add(n)
	return strings.Join(strings.Fields(b.String()), " ")
}

// byID returns the element with an id.
func byID(t *testing.T, root *html.Node, id string) (found *html.Node) {
	t.Helper()
	each(root, func(n *html.Node) {
		if attribute(n, "id") == id {
			found = n
		}
	})
	if found == nil {
		t.Fatalf("no element with the id %s", id)
	}
	return found
}
