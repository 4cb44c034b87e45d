package identity

import (
	"fmt"
	"strings"
	"testing"
)

// usersOf has n rules, each for one service; how makes the patterns of a rule.
func usersOf(t testing.TB, n int, how func(i int) string) *Users {
	t.Helper()
	var text strings.Builder
	text.WriteString("users:\n")
	for i := range n {
		fmt.Fprintf(&text, "- {match: [%s], user: u%d, password_env: P}\n", how(i), i)
	}
	return parseUsers(t, text.String())
}

// The first rule that matches decides, whether it names a certificate exactly or not.
func TestOrderOfRulesIsThatOfTheFile(t *testing.T) {
	f := newForge(t)
	ca := "ca:sha256/" + base64Sum(spkiSum(f.root))
	s := f.subject(holder{cn: []string{"web"}, dns: []string{"web.internal"}, uri: []string{"spiffe://prod/web"}, email: []string{"web@corp"}})
	spki := "spki:sha256/" + base64Sum(s.spki)
	exact := []string{"cn:web", "dns:web.internal", "dns:WEB.internal.", "uri:SPIFFE://prod/web", "email:web@CORP", "serial:01", spki, ca}
	for _, one := range exact {
		for _, rules := range [][]string{
			{one, `"cn:w*"`}, {`"cn:w*"`, one}, {"cn:other", one}, {`"cn:x*"`, one, `"dns:*.internal"`}, {ca + ", cn:other", ca + ", " + one}, {one + ", cn:other", one},
		} {
			quoted := func(i int) string { return rules[i] }
			want := 0
			if strings.Contains(rules[0], "other") || strings.Contains(rules[0], "x*") {
				want = 1
			}
			if strings.Count(strings.Join(rules, " "), ca) > 2 { // the same pattern twice in a rule is a fault of the file
				continue
			}
			m, err := usersOf(t, len(rules), quoted).Match(s)
			if err != nil || m.Index != want {
				t.Errorf("%q: got %d, %v, want %d", rules, m.Index, err, want)
			}
		}
	}
}

// BenchmarkMatch decides about a certificate by more and more rules, of which the last one matches.
func BenchmarkMatch(b *testing.B) {
	f := newForge(b)
	ca := "ca:sha256/" + base64Sum(spkiSum(f.root))
	for name, how := range map[string]func(i int) string{
		"exact": func(i int) string { return fmt.Sprintf(`"%s", "uri:spiffe://prod/ns/a/sa/s%d"`, ca, i) },
		"star":  func(i int) string { return fmt.Sprintf(`"%s", "uri:spiffe://prod/ns/*/sa/s%d"`, ca, i) },
	} {
		for _, n := range []int{100, 1000, 7000} { // a file of 1 MiB has no room for many more
			u := usersOf(b, n, how)
			s := f.subject(holder{cn: []string{"web"}, uri: []string{fmt.Sprintf("spiffe://prod/ns/a/sa/s%d", n-1)}})
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for range b.N {
					if m, err := u.Match(s); err != nil || m.Index != n-1 {
						b.Fatal(m, err)
					}
				}
			})
		}
	}
}
