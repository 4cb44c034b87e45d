package identity

import (
	"slices"
	"strings"
)

// uriName is a URI cut up for comparison. Percent-encoding stays as it is.
type uriName struct {
	// head is the scheme, "//" and the host, in lower case, and the slash that the
	// path starts with: what of these there is.
	head     string
	segments []string // of the path after that slash; empty without a path
}

// parseURI says what makes a URI useless as an identity, or nothing.
func parseURI(text string) (u uriName, problem string) {
	scheme, rest, ok := strings.Cut(text, ":")
	switch {
	case !ok || !isScheme(scheme):
		return u, "it does not start with a scheme"
	case !isASCII(text):
		return u, "it holds a character outside ASCII, which a URI has percent-encoded"
	case strings.ContainsAny(text, "?#"):
		return u, "it has a query or a fragment"
	}
	u.head = strings.ToLower(scheme) + ":"
	path := rest
	if authority, found := strings.CutPrefix(rest, "//"); found {
		path = ""
		if i := strings.IndexByte(authority, '/'); i >= 0 {
			authority, path = authority[:i], authority[i:]
		}
		if strings.Contains(authority, "@") {
			return u, "it has a user in front of the host"
		}
		u.head += "//" + strings.ToLower(authority)
	}
	if path == "" {
		return u, ""
	}
	if relative, rooted := strings.CutPrefix(path, "/"); rooted {
		u.head += "/"
		path = relative
	}
	u.segments = strings.Split(path, "/")
	if slices.Contains(u.segments, ".") || slices.Contains(u.segments, "..") {
		return u, `it has a path segment "." or ".."`
	}
	return u, ""
}

// isScheme: RFC 3986, 3.1.
func isScheme(s string) bool {
	for i, c := range []byte(strings.ToLower(s)) {
		if (c < 'a' || c > 'z') && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return false
		}
	}
	return s != ""
}

func (u uriName) String() string { return u.head + strings.Join(u.segments, "/") }

func (u uriName) hasEmpty() bool { return slices.Contains(u.segments, "") }

// uriMatcher holds the segments of the pattern cut at each "**", as a glob is
// cut at its stars.
type uriMatcher struct {
	head   string
	wild   bool // there is a star
	blocks [][]glob
}

// newURIMatcher reads "**" as gitignore does: between slashes it stands for any
// number of segments, also none; at the end for at least one.
func newURIMatcher(u uriName) uriMatcher {
	m := uriMatcher{head: u.head, wild: strings.Contains(u.String(), "*")}
	segments := u.segments
	if n := len(segments); n > 0 && segments[n-1] == "**" {
		segments = slices.Insert(slices.Clone(segments), n-1, "*")
	}
	start := 0
	for i, segment := range segments {
		if segment == "**" {
			m.blocks = append(m.blocks, globs(segments[start:i]))
			start = i + 1
		}
	}
	m.blocks = append(m.blocks, globs(segments[start:]))
	return m
}

func (m uriMatcher) match(s *Subject) bool {
	return slices.ContainsFunc(s.uri, m.matchName)
}

func (m uriMatcher) matchName(u uriName) bool {
	// A star never stands for an empty segment, and a pattern with a star has none.
	if u.head != m.head || m.wild && u.hasEmpty() {
		return false
	}
	path := u.segments
	first, last := m.blocks[0], m.blocks[len(m.blocks)-1]
	if len(m.blocks) == 1 {
		return matchEach(first, path)
	}
	if len(path) < len(first)+len(last) ||
		!matchEach(first, path[:len(first)]) || !matchEach(last, path[len(path)-len(last):]) {
		return false
	}
	path = path[len(first) : len(path)-len(last)]
	for _, block := range m.blocks[1 : len(m.blocks)-1] {
		for !startsWith(path, block) {
			if len(path) == 0 {
				return false
			}
			path = path[1:]
		}
		path = path[len(block):]
	}
	return true
}

func startsWith(path []string, block []glob) bool {
	return len(path) >= len(block) && matchEach(block, path[:len(block)])
}
