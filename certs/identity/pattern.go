// Package identity decides what a verified client certificate stands for: it matches
// certificates against patterns, digests what stays the same when a certificate
// is renewed, and maps certificates to the backend's users by the rules of a
// users file. It decides; it opens no sockets and logs nothing. Everything in it
// is immutable once made and may be used concurrently.
package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pattern is one condition on a certificate: a kind, a colon and a text, such as
// "dns:*.apps.internal". The zero Pattern matches nothing.
type Pattern struct {
	text    string // canonical, with the kind
	matcher matcher
}

type matcher interface {
	match(s *Subject) bool
}

// String is the canonical form: two patterns with the same String match the same
// certificates, and ParsePattern accepts it.
func (p Pattern) String() string { return p.text }

// Matches reports whether the certificate has the property that p names. One
// that has several names of a kind matches if any of them does.
func (p Pattern) Matches(s *Subject) bool {
	return p.matcher != nil && s.proven() && p.matcher.match(s)
}

// ParsePatterns parses each pattern. The error holds every fault.
func ParsePatterns(list []string) ([]Pattern, error) {
	var patterns []Pattern
	var faults []error
	for _, text := range list {
		p, err := ParsePattern(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		patterns = append(patterns, p)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return patterns, nil
}

// ParseList reads one pattern a line. Blank lines and those that begin with "#" do
// not count. The error holds every fault with its line.
func ParseList(data []byte) ([]Pattern, error) {
	var patterns []Pattern
	var faults []error
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		p, err := ParsePattern(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", number, err))
			continue
		}
		patterns = append(patterns, p)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return patterns, nil
}

// MatchAll reports whether every pattern matches; different names of one
// certificate may satisfy different patterns. An empty list matches nothing.
func MatchAll(patterns []Pattern, s *Subject) bool {
	return len(patterns) > 0 && !slices.ContainsFunc(patterns, func(p Pattern) bool { return !p.Matches(s) })
}

func digestPatterns(patterns []Pattern) [32]byte {
	h := sha256.New()
	writeStrings(h, canonical(patterns))
	return [32]byte(h.Sum(nil))
}

// canonical is the sorted set of the patterns' texts.
func canonical(patterns []Pattern) []string {
	texts := make([]string, len(patterns))
	for i, p := range patterns {
		texts[i] = p.text
	}
	return sortedSet(texts)
}

func sortedSet(texts []string) []string {
	sorted := slices.Clone(texts)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// text matches cn: and ou:, whose names keep their case.
type textMatcher struct {
	names func(*Subject) []string
	glob  glob
}

func (m textMatcher) match(s *Subject) bool {
	return slices.ContainsFunc(m.names(s), m.glob.match)
}

type dnsMatcher struct{ labels []glob }

func (m dnsMatcher) match(s *Subject) bool {
	return slices.ContainsFunc(s.dns, func(name domainName) bool { return matchEach(m.labels, name.labels) })
}

type emailMatcher struct {
	local  glob
	labels []glob
}

func (m emailMatcher) match(s *Subject) bool {
	return slices.ContainsFunc(s.email, func(address string) bool {
		local, domain, _ := strings.Cut(address, "@")
		return m.local.match(local) && matchLabels(m.labels, domain)
	})
}

type serialMatcher struct{ serial string }

func (m serialMatcher) match(s *Subject) bool { return s.serial == m.serial }

type spkiMatcher struct{ sum [32]byte }

func (m spkiMatcher) match(s *Subject) bool { return s.spki == m.sum }

// caMatcher matches any CA of the verified chain, so that a rule can name the
// root or the one intermediate that issues for an environment.
type caMatcher struct{ sum [32]byte }

func (m caMatcher) match(s *Subject) bool { return slices.Contains(s.cas, m.sum) }
