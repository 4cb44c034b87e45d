package identity

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxPattern is twice the longest SPIFFE ID (SPIFFE-ID, 2.3), in bytes.
const maxPattern = 4096

// PatternError says what is wrong with a pattern.
type PatternError struct {
	Pattern string // as given, cut where it is long
	Problem string
	Form    string // what is accepted
}

func (e *PatternError) Error() string {
	return fmt.Sprintf("pattern %q: %s\nwant %s", e.Pattern, e.Problem, e.Form)
}

type kind struct {
	name string
	form string
	// parse returns the canonical text; the problem is empty where there is none.
	parse func(text string) (canonical string, m matcher, problem string)
}

// kinds in the order in which messages name them.
var kinds = []kind{
	{"cn", "cn:NAME, where * is any run of characters, such as cn:web-*", parseText(func(s *Subject) []string { return s.cn })},
	{"ou", "ou:NAME, where * is any run of characters, such as ou:payments", parseText(func(s *Subject) []string { return s.ou })},
	{"dns", "dns:NAME, where * stays within one label, such as dns:*.apps.internal", parseDNS},
	{"uri", "uri:SCHEME:..., where * stays within one path segment and ** is any number of them, such as uri:spiffe://prod/ns/*/sa/web", parseURIPattern},
	{"email", "email:LOCAL@DOMAIN, where * stays in front of the @ or within one label, such as email:*@corp.example", parseEmail},
	{"serial", "serial:HEX, such as serial:0a1b; leading zeros, upper case and colons between bytes are accepted", parseSerial},
	{"spki", "spki:sha256/DIGEST of the SubjectPublicKeyInfo in standard base64 (44 characters with =) or hex (64)",
		parseSum(func(sum [32]byte) matcher { return spkiMatcher{sum} })},
	{"ca", "ca:sha256/DIGEST of a CA's SubjectPublicKeyInfo in standard base64 (44 characters with =) or hex (64)",
		parseSum(func(sum [32]byte) matcher { return caMatcher{sum} })},
}

// ParsePattern parses "kind:text". The error is a *PatternError.
func ParsePattern(pattern string) (Pattern, error) {
	name, text, ok := strings.Cut(pattern, ":")
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if !ok || i < 0 {
		return Pattern{}, patternError(pattern, "it does not start with a known kind", "one of "+kindNames())
	}
	k := kinds[i]
	switch {
	case text == "":
		return Pattern{}, patternError(pattern, "nothing follows the kind", k.form)
	case len(pattern) > maxPattern:
		return Pattern{}, patternError(pattern, fmt.Sprintf("it is longer than %d bytes", maxPattern), k.form)
	case !clean(text):
		return Pattern{}, patternError(pattern, "it holds a control character or is not UTF-8", k.form)
	case strings.TrimSpace(text) != text:
		return Pattern{}, patternError(pattern, "a blank is at its start or end", k.form)
	case strings.Contains(text, "**") && name != "uri":
		return Pattern{}, patternError(pattern, "** is for the path of uri: only", k.form)
	}
	canonical, m, problem := k.parse(text)
	if problem != "" {
		return Pattern{}, patternError(pattern, problem, k.form)
	}
	return Pattern{text: name + ":" + canonical, matcher: m}, nil
}

func kindNames() string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name + ":"
	}
	return strings.Join(names, " ")
}

func patternError(pattern, problem, form string) error {
	return &PatternError{Pattern: cut(pattern, 200), Problem: problem, Form: form}
}

// cut shortens text to about max bytes, never within a character.
func cut(text string, max int) string {
	if len(text) <= max {
		return text
	}
	for max > 0 && !utf8.RuneStart(text[max]) {
		max--
	}
	return text[:max] + "…"
}

func parseText(names func(*Subject) []string) func(string) (string, matcher, string) {
	return func(text string) (string, matcher, string) {
		return text, textMatcher{names, newGlob(text)}, ""
	}
}

func parseDNS(text string) (string, matcher, string) {
	domain, problem := domainPattern(text)
	return domain, dnsMatcher{globs(strings.Split(domain, "."))}, problem
}

func parseEmail(text string) (string, matcher, string) {
	local, domain, ok := strings.Cut(text, "@")
	switch {
	case !ok || local == "":
		return "", nil, "it is not LOCAL@DOMAIN"
	case strings.Contains(domain, "@"):
		return "", nil, "it has more than one @"
	case !isASCII(local):
		return "", nil, "the part in front of the @ is not ASCII: an rfc822Name cannot hold it"
	}
	domain, problem := domainPattern(domain)
	return local + "@" + domain, emailMatcher{newGlob(local), globs(strings.Split(domain, "."))}, problem
}

func parseURIPattern(text string) (string, matcher, string) {
	u, problem := parseURI(text)
	switch {
	case problem != "":
		return "", nil, problem
	case strings.Contains(u.head, "*"):
		return "", nil, "* is for the path only: scheme and host are named in full"
	case strings.Contains(text, "*") && u.hasEmpty():
		return "", nil, "a path segment is empty"
	}
	for _, segment := range u.segments {
		if segment != "**" && strings.Contains(segment, "**") {
			return "", nil, "** is part of a path segment: it stands alone between slashes"
		}
	}
	return u.String(), newURIMatcher(u), ""
}

func parseSerial(text string) (string, matcher, string) {
	const problem = "it is not a hexadecimal number"
	digits := text
	if strings.Contains(text, ":") {
		for _, octet := range strings.Split(text, ":") {
			if len(octet) != 2 {
				return "", nil, problem + ", or a colon is not between bytes of two digits"
			}
		}
		digits = strings.ReplaceAll(text, ":", "")
	}
	digits = strings.ToLower(digits)
	if strings.Trim(digits, "0123456789abcdef") != "" {
		return "", nil, problem
	}
	digits = strings.TrimLeft(digits, "0")
	if digits == "" {
		digits = "0"
	}
	return digits, serialMatcher{digits}, ""
}

func parseSum(m func([32]byte) matcher) func(string) (string, matcher, string) {
	return func(text string) (string, matcher, string) {
		encoded, ok := strings.CutPrefix(text, "sha256/")
		if !ok {
			return "", nil, "sha256/ does not follow the kind"
		}
		var sum []byte
		var err error
		if len(encoded) == 2*32 {
			sum, err = hex.DecodeString(encoded)
		} else {
			sum, err = base64.StdEncoding.Strict().DecodeString(encoded)
		}
		if err != nil || len(sum) != 32 {
			return "", nil, "that is not a SHA-256 digest"
		}
		return "sha256/" + base64.StdEncoding.EncodeToString(sum), m([32]byte(sum)), ""
	}
}
