package identity

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// RFC 1035, 2.3.4, as text and without the final dot.
const (
	maxLabel  = 63
	maxDomain = 253
)

// domainName is cut up once, for many rules.
type domainName struct {
	text   string
	labels []string
}

// clean reports whether a name may be compared at all: it is not empty, and
// holds no control character (CR, LF and NUL among them) and no broken UTF-8.
func clean(name string) bool {
	return name != "" && utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsControl) < 0
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// normalDomain is the form in which domains of certificates are compared: lower
// case, without a final dot. What is no domain name, or has a star, is none.
func normalDomain(name string) (string, bool) {
	// ASCII first: lower case makes a k of the Kelvin sign.
	if !isASCII(name) {
		return "", false
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if len(name) > maxDomain {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return "", false
		}
	}
	return name, true
}

// isLabel takes letters, digits, hyphens and the underscores of service names.
func isLabel(label string) bool {
	return label != "" && len(label) <= maxLabel && strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// domainPattern is the form in which domains of patterns are compared: as those
// of certificates, with stars, and each label in Unicode as its A-label. The
// problem is empty where there is none.
func domainPattern(text string) (domain, problem string) {
	labels := strings.Split(strings.TrimSuffix(text, "."), ".")
	for i, label := range labels {
		switch {
		case label == "":
			return "", "a label is empty"
		case !isASCII(label) && strings.Contains(label, "*"):
			return "", "* cannot be part of a label in Unicode: it would be compared with the A-label (xn--...)"
		case !isASCII(label):
			a, err := idna.Lookup.ToASCII(label)
			if err != nil || !isLabel(a) {
				return "", "a label in Unicode has no A-label (xn--...)"
			}
			label = a
		}
		label = strings.ToLower(label)
		if rest := strings.ReplaceAll(label, "*", ""); rest != "" && !isLabel(rest) {
			return "", "a label is longer than 63 bytes or holds something else than letters, digits, - _ *"
		}
		labels[i] = label
	}
	domain = strings.Join(labels, ".")
	if len(domain) > maxDomain {
		return "", "it is longer than 253 bytes"
	}
	return domain, ""
}

// normalEmail keeps the local part: only its own server knows what it means.
func normalEmail(address string) (string, bool) {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || !clean(local) || !isASCII(local) || strings.ContainsAny(address, "*") {
		return "", false
	}
	domain, ok = normalDomain(domain) // a second @ is in no domain
	return local + "@" + domain, ok
}
