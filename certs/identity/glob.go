package identity

import "strings"

// glob is a text cut at its stars; each star stands for any run of bytes, also
// none. One part: no star.
type glob []string

func newGlob(text string) glob { return strings.Split(text, "*") }

// match takes the leftmost place for each part between two stars: a later one
// could only leave less room for the rest, so it never has to go back, and its
// time grows with the text and not with the number of stars.
func (g glob) match(text string) bool {
	first, last := g[0], g[len(g)-1]
	if len(g) == 1 {
		return text == first
	}
	if len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for _, part := range g[1 : len(g)-1] {
		var found bool
		if _, text, found = strings.Cut(text, part); !found {
			return false
		}
	}
	return true
}

func globs(parts []string) []glob {
	all := make([]glob, len(parts))
	for i, part := range parts {
		all[i] = newGlob(part)
	}
	return all
}

// matchEach matches the globs with the parts, one by one.
func matchEach(globs []glob, parts []string) bool {
	if len(globs) != len(parts) {
		return false
	}
	for i, g := range globs {
		if !g.match(parts[i]) {
			return false
		}
	}
	return true
}

// matchLabels matches label by label: no star reaches over a dot.
func matchLabels(labels []glob, domain string) bool {
	return matchEach(labels, strings.Split(domain, "."))
}

// MatchName reports whether a name, as Subject.Name returns it, matches pattern, in which each star stands for any run of bytes, also none.
// It is for people who choose among names that they see, and decides nothing about access.
func MatchName(pattern, name string) bool { return newGlob(pattern).match(name) }
