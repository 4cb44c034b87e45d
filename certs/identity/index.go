package identity

import (
	"encoding/base64"
	"strings"
)

// index finds the first of many lists of patterns that a certificate matches, without a look at each of them: a pattern that
// has no star matches exactly the certificates that have its text as a name.
type index struct {
	lists [][]Pattern
	named map[string][]int // by such a pattern, the places of the lists that it decides about, in their order
	wild  []int            // the places of the lists that have no such pattern
}

func newIndex(lists [][]Pattern) *index {
	x := &index{lists: lists, named: make(map[string][]int)}
	uses := make(map[string]int)
	for _, list := range lists {
		for _, p := range list {
			uses[p.text]++
		}
	}
	for i, list := range lists {
		rarest := ""
		for _, p := range list {
			if !strings.Contains(p.text, "*") && (rarest == "" || uses[p.text] < uses[rarest]) {
				rarest = p.text
			}
		}
		if rarest == "" {
			x.wild = append(x.wild, i)
			continue
		}
		x.named[rarest] = append(x.named[rarest], i)
	}
	return x
}

// first returns the place of the first list of which all patterns match; -1: there is none.
func (x *index) first(s *Subject) int {
	found := len(x.lists)
	try := func(places []int) {
		for _, i := range places {
			if i >= found {
				return
			}
			if MatchAll(x.lists[i], s) {
				found = i
				return
			}
		}
	}
	for _, text := range s.texts() {
		try(x.named[text])
	}
	try(x.wild)
	if found == len(x.lists) {
		return -1
	}
	return found
}

// texts returns the canonical text of each pattern without a star that the certificate matches.
func (s *Subject) texts() []string {
	if !s.proven() {
		return nil
	}
	sum := func(kind string, sum [32]byte) string {
		return kind + ":sha256/" + base64.StdEncoding.EncodeToString(sum[:])
	}
	texts := []string{"serial:" + s.serial, sum("spki", s.spki)}
	for _, ca := range s.cas {
		texts = append(texts, sum("ca", ca))
	}
	for kind, names := range map[string][]string{"cn": s.cn, "ou": s.ou, "email": s.email} {
		for _, name := range names {
			texts = append(texts, kind+":"+name)
		}
	}
	for _, name := range s.dns {
		texts = append(texts, "dns:"+name.text)
	}
	for _, name := range s.uri {
		texts = append(texts, "uri:"+name.String())
	}
	return texts
}

// Set is patterns of which a certificate has to match one. It is immutable.
type Set struct {
	patterns []Pattern
	index    *index
}

// NewSet keeps the patterns.
func NewSet(patterns []Pattern) *Set {
	lists := make([][]Pattern, len(patterns))
	for i := range patterns {
		lists[i] = patterns[i : i+1]
	}
	return &Set{patterns, newIndex(lists)}
}

// Matches reports whether at least one pattern matches. An empty set matches nothing.
func (s *Set) Matches(subject *Subject) bool { return s.index.first(subject) >= 0 }

// Digest depends neither on the order of the patterns nor on repetition.
func (s *Set) Digest() [32]byte { return digestPatterns(s.patterns) }
