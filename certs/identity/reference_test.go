package identity

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// reference decides as the manual reads, from what was put into the certificate
// and by trying everything. It shares nothing with the package.
type reference struct{ holder holder }

func (r reference) matches(pattern string) bool {
	kind, text, _ := strings.Cut(pattern, ":")
	one := func(names []string, match func(name string) bool) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			return name != "" && !strings.ContainsFunc(name, unicode.IsControl) && match(name)
		})
	}
	san := func(match func(name string) bool) func(string) bool {
		return func(name string) bool { return !strings.Contains(name, "*") && match(name) }
	}
	switch kind {
	case "cn":
		return len(r.holder.cn) == 1 && one(r.holder.cn, func(name string) bool { return glued(text, name) })
	case "ou":
		return one(r.holder.ou, func(name string) bool { return glued(text, name) })
	case "dns":
		return one(r.holder.dns, san(func(name string) bool { return domain(text, name) }))
	case "email":
		return one(r.holder.email, san(func(name string) bool {
			p, n := strings.Split(text, "@"), strings.Split(name, "@")
			return len(n) == 2 && n[0] != "" && glued(p[0], n[0]) && domain(p[1], n[1])
		}))
	case "uri":
		return one(r.holder.uri, san(func(name string) bool { return uri(text, name) }))
	case "serial":
		number := strings.TrimLeft(strings.ToLower(strings.ReplaceAll(text, ":", "")), "0")
		return number == "1"
	}
	panic(kind)
}

// glued tries every length of every star.
func glued(pattern, name string) bool {
	switch {
	case pattern == "":
		return name == ""
	case pattern[0] == '*':
		for i := 0; i <= len(name); i++ {
			if glued(pattern[1:], name[i:]) {
				return true
			}
		}
		return false
	}
	return name != "" && pattern[0] == name[0] && glued(pattern[1:], name[1:])
}

var aLabels = map[string]string{"bücher": "xn--bcher-kva", "straße": "xn--strae-oqa"}

func domain(pattern, name string) bool {
	split := func(s string) []string { return strings.Split(strings.ToLower(strings.TrimSuffix(s, ".")), ".") }
	p, n := split(pattern), split(name)
	if len(p) != len(n) {
		return false
	}
	for i := range p {
		if a := aLabels[p[i]]; a != "" {
			p[i] = a
		}
		if !regexp.MustCompile(`^[a-z0-9_-]+$`).MatchString(n[i]) || !glued(p[i], n[i]) {
			return false
		}
	}
	return true
}

func uri(pattern, name string) bool {
	if strings.ContainsAny(name, "?#") || regexp.MustCompile(`/\.\.?(/|$)`).MatchString(name) {
		return false
	}
	parts := regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*:(?://[^/]*)?)(/?)(.*)$`)
	p, n := parts.FindStringSubmatch(pattern), parts.FindStringSubmatch(name)
	if n == nil || strings.Contains(n[1], "@") || !strings.EqualFold(p[1], n[1]) || p[2] != n[2] {
		return false
	}
	if p[2]+p[3] == "" || n[2]+n[3] == "" {
		return p[3] == n[3]
	}
	return segments(strings.Split(p[3], "/"), strings.Split(n[3], "/"))
}

func segments(p, n []string) bool {
	switch {
	case len(p) == 0:
		return len(n) == 0
	case p[0] == "**":
		least := 0
		if len(p) == 1 {
			least = 1
		}
		for i := least; i <= len(n) && !slices.Contains(n[:i], ""); i++ {
			if segments(p[1:], n[i:]) {
				return true
			}
		}
		return false
	case len(n) == 0, strings.Contains(p[0], "*") && n[0] == "":
		return false
	}
	return glued(p[0], n[0]) && segments(p[1:], n[1:])
}

// dice makes names that are alike, so that patterns made of other ones match now and then.
type dice struct{ *rand.Rand }

func (d dice) of(list ...string) string { return list[d.IntN(len(list))] }

func (d dice) some(most int, one func() string) (list []string) {
	for range d.IntN(most + 1) {
		list = append(list, one())
	}
	return list
}

func (d dice) joined(most int, by string, one func() string) string {
	return strings.Join(append(d.some(most-1, one), one()), by)
}

func (d dice) word() string {
	return d.joined(3, "", func() string { return d.of("a", "b", "ab", "-") })
}

// spoil makes a name that must not match, or must in another form.
func (d dice) spoil(name string) string {
	if d.IntN(6) > 0 {
		return name
	}
	i := d.IntN(len(name) + 1)
	switch d.IntN(5) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return name + "."
	case 2:
		return name[:i] + d.of("\r\n", "\x00", "\x7f", "\x1b") + name[i:]
	case 3:
		return name[:i] + d.of("*", ".", "/", "@", "?", "//", "/../") + name[i:]
	}
	return ""
}

func (d dice) label() string {
	return d.of("a", "b", "ab", "xn--bcher-kva", "xn--strae-oqa")
}

func (d dice) domain() string { return d.joined(2, ".", d.label) }

func (d dice) uri() string {
	head := d.of("spiffe://prod", "spiffe://prod", "spiffe://dev", "urn:x:")
	if d.IntN(8) == 0 {
		return head
	}
	return head + "/" + d.joined(4, "/", func() string { return d.of("a", "b", "ab", "ns") })
}

func (d dice) holder() holder {
	return holder{
		cn:    d.some(d.IntN(3), func() string { return d.spoil(d.word()) }),
		ou:    d.some(2, func() string { return d.spoil(d.word()) }),
		dns:   d.some(2, func() string { return d.spoil(d.domain()) }),
		uri:   d.some(2, func() string { return d.spoil(d.uri()) }),
		email: d.some(2, func() string { return d.spoil(d.word() + "@" + d.domain()) }),
	}
}

// star puts stars into a name.
func (d dice) star(name string) string {
	for range d.IntN(3) {
		i := d.IntN(len(name) + 1)
		j := i + d.IntN(len(name)+1-i)
		name = name[:i] + "*" + name[j:]
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "**", "*"), "**", "*")
}

func (d dice) starred(name, by string) string {
	parts := strings.Split(name, by)
	for i := range parts {
		if parts[i] = d.star(parts[i]); parts[i] == "" {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, by)
}

func (d dice) pattern() string {
	unicode := strings.NewReplacer("xn--bcher-kva", "bücher", "xn--strae-oqa", "straße")
	domain := func() string {
		if name := d.domain(); d.IntN(3) == 0 {
			return unicode.Replace(name)
		} else if d.IntN(5) == 0 {
			return strings.ToUpper(name) + "."
		} else {
			return d.starred(name, ".")
		}
	}
	switch d.IntN(8) {
	case 0:
		return "cn:" + d.of(d.star(d.word()), "*")
	case 1:
		return "ou:" + d.of(d.star(d.word()), "*")
	case 2:
		return "email:" + d.of(d.starred(d.word(), "@"), "*", "*") + "@" + domain()
	case 3, 4:
		head, path, _ := strings.Cut(d.uri(), "/")
		if host, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); strings.HasSuffix(head, "spiffe:") {
			head, path = head+"//"+host, rest
			if !ok {
				return "uri:" + d.of(head, strings.ToUpper(head))
			}
		}
		list := strings.Split(d.starred(path, "/"), "/")
		for range d.IntN(3) {
			list = slices.Insert(list, d.IntN(len(list)+1), "**")
		}
		return "uri:" + d.of(head, strings.ToUpper(head)) + "/" + strings.Join(list, "/")
	case 5:
		return "serial:" + d.of("1", "01", "00:01", "0A", "11", "10")
	}
	return "dns:" + domain()
}

func TestDecisionsEqualTheReference(t *testing.T) {
	seed := testSeed(t)
	t.Logf("TEST_SEED=%d", seed)
	d := dice{rand.New(rand.NewPCG(seed, 1))}
	f := newForge(t)
	counts := make(map[string]int)
	for n := range 2000 {
		var rules []string
		var matches [][]string
		for i := range 4 {
			match := append(d.some(1, d.pattern), d.pattern())
			user := d.of("web", "{cn}", "x-{cn}")
			rules = append(rules, fmt.Sprintf("  - {match: %s, user: %q, password_env: P, deny: [R%d]}", quoted(match), user, i))
			matches = append(matches, append(match, user))
		}
		text := "users:\n" + strings.Join(rules, "\n") + "\n"
		u, err := ParseUsers("users.yaml", []byte(text))
		if err != nil && strings.Contains(err.Error(), "never reached") {
			continue
		}
		must(t, err)
		h := d.holder()
		subject := f.subject(h)
		for _, match := range matches {
			for _, pattern := range match[:len(match)-1] {
				p, err := ParsePattern(pattern)
				must(t, err)
				got, want := p.Matches(subject), reference{h}.matches(pattern)
				if got != want {
					t.Fatalf("TEST_SEED=%d, case %d: %q against %+q: got %v, want %v", seed, n, pattern, h.names(), got, want)
				}
				kind, _, _ := strings.Cut(pattern, ":")
				counts[fmt.Sprint(kind, " ", want)]++
			}
		}
		wantUser, wantErr := reference{h}.decide(matches)
		got, err := u.Match(subject)
		if got.User != wantUser || !errors.Is(err, wantErr) {
			t.Fatalf("TEST_SEED=%d, case %d: %+v\n%sgot %q, %v, want %q, %v", seed, n, h, text, got.User, err, wantUser, wantErr)
		}
		counts[fmt.Sprint("decision ", wantErr)]++
	}
	t.Log(counts)
	for _, kind := range []string{"cn", "ou", "dns", "uri", "email", "serial"} {
		for _, outcome := range []bool{true, false} {
			if counts[fmt.Sprint(kind, " ", outcome)] < 20 {
				t.Errorf("TEST_SEED=%d: %s was %v %d times: the dice are loaded", seed, kind, outcome, counts[fmt.Sprint(kind, " ", outcome)])
			}
		}
	}
	for _, err := range []error{nil, ErrUnmapped, ErrBadUser} {
		if counts[fmt.Sprint("decision ", err)] < 20 {
			t.Errorf("TEST_SEED=%d: decision %v came %d times", seed, err, counts[fmt.Sprint("decision ", err)])
		}
	}
}

func quoted(list []string) string {
	var all []string
	for _, s := range list {
		all = append(all, "'"+s+"'")
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// decide takes the patterns of each rule with its user at the end.
func (r reference) decide(rules [][]string) (string, error) {
	for _, rule := range rules {
		patterns, user := rule[:len(rule)-1], rule[len(rule)-1]
		if slices.ContainsFunc(patterns, func(p string) bool { return !r.matches(p) }) {
			continue
		}
		if !strings.Contains(user, "{cn}") {
			return user, nil
		}
		if len(r.holder.cn) != 1 {
			return "", ErrBadUser
		}
		user = strings.Replace(user, "{cn}", r.holder.cn[0], 1)
		if r.holder.cn[0] == "" || !regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`).MatchString(user) {
			return "", ErrBadUser
		}
		return user, nil
	}
	return "", ErrUnmapped
}
