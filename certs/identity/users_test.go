package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dragontls/certs/pki"
)

func parseUsers(t testing.TB, text string) *Users {
	t.Helper()
	u, err := ParseUsers("users.yaml", []byte(text))
	must(t, err)
	return u
}

func example(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	must(t, err)
	return string(text)
}

// The CA in the examples is none that exists: ca replaces its digest.
func exampleOf(t testing.TB, name string, ca *pki.CA) *Users {
	t.Helper()
	const digest = "UNhY4JhezH9gQYqvDMWrWH9CwlcKiECVqejMrND2VFw="
	parseUsers(t, example(t, name)) // as it stands
	return parseUsers(t, strings.ReplaceAll(example(t, name), digest, base64Sum(spkiSum(certOf(t, ca)))))
}

func TestExamplesOfTheManual(t *testing.T) {
	root, other := newCA(t, "root"), newCA(t, "other")
	for _, c := range []struct {
		file string
		ca   *pki.CA
		leaf pki.Leaf
		user string
		err  error
	}{
		{"one-service.yaml", root, pki.Leaf{CN: "w", DNS: []string{"web.apps.internal"}}, "web", nil},
		{"one-service.yaml", root, pki.Leaf{CN: "w", DNS: []string{"api.apps.internal"}}, "", ErrUnmapped},
		{"one-service.yaml", other, pki.Leaf{CN: "w", DNS: []string{"web.apps.internal"}}, "", ErrUnmapped},
		{"many-services.yaml", root, pki.Leaf{CN: "reports", OU: []string{"services"}}, "reports", nil},
		{"many-services.yaml", root, pki.Leaf{CN: "billing", OU: []string{"services"}}, "app-billing", nil},
		{"many-services.yaml", root, pki.Leaf{CN: "billing", OU: []string{"people"}}, "", ErrUnmapped},
		{"many-services.yaml", root, pki.Leaf{CN: "a/../b", OU: []string{"services"}}, "", ErrBadUser},
		{"many-services.yaml", root, pki.Leaf{OU: []string{"services"}}, "", ErrBadUser},
		{"spiffe.yaml", root, pki.Leaf{URIs: []string{"spiffe://prod/ns/payments/sa/web"}}, "web", nil},
		{"spiffe.yaml", root, pki.Leaf{URIs: []string{"spiffe://prod/ns/payments/sa/worker"}}, "payments", nil},
		{"spiffe.yaml", root, pki.Leaf{URIs: []string{"spiffe://prod/ns/ops/sa/migrate"}}, "migrate", nil},
		{"spiffe.yaml", root, pki.Leaf{URIs: []string{"spiffe://dev/ns/payments/sa/web"}}, "", ErrUnmapped},
	} {
		t.Run(fmt.Sprint(c.file, c.leaf.CN, c.leaf.OU, c.leaf.DNS, c.leaf.URIs), func(t *testing.T) {
			s := FromChain(verified(t, c.ca, c.ca, c.leaf))
			m, err := exampleOf(t, c.file, root).Match(&s)
			if m.User != c.user || !errors.Is(err, c.err) {
				t.Fatalf("got %q, %v, want %q, %v", m.User, err, c.user, c.err)
			}
		})
	}
}

func TestRuleKeepsWhatTheFileSays(t *testing.T) {
	rules := exampleOf(t, "many-services.yaml", newCA(t, "root")).Rules()
	first, second := rules[0], rules[1]
	if first.Line != 3 || second.Line != 9 {
		t.Errorf("got lines %d and %d", first.Line, second.Line)
	}
	if got, want := strings.Join(first.Allow, " "), "@read CLIENT|SETNAME PING"; got != want {
		t.Errorf("got allow %q, want %q", got, want)
	}
	if got, want := strings.Join(second.Deny, " "), "@dangerous CONFIG|SET"; got != want {
		t.Errorf("got deny %q, want %q", got, want)
	}
	r := parseUsers(t, `users: [{match: ["cn:a"], user: default, password_env: P, client_auth: True, dry_run: true, deny: [get, "Config|Set", "@Read", GET]}]`).Rules()[0]
	if !r.ClientAuth || !r.DryRun || strings.Join(r.Deny, " ") != "@read CONFIG|SET GET" || r.User != "default" {
		t.Errorf("got %+v", r)
	}
	if r = parseUsers(t, `users: [{match: ["cn:a"], user: a, password_env: P}]`).Rules()[0]; r.ClientAuth || r.DryRun || r.Allow != nil || r.Deny != nil {
		t.Errorf("got %+v, want nothing that was not asked for", r)
	}
}

func TestFirstRuleWins(t *testing.T) {
	f := newForge(t)
	u := parseUsers(t, `
users:
  - {match: ["cn:web", "dns:a.internal"], user: both, password_env: P}
  - {match: ["dns:b.*", "dns:a.*"], user: sans, password_env: P}
  - {match: ["ou:derived"], user: "{cn}", password_env: P}
  - {match: ["cn:*"], user: rest, password_env: P}
`)
	for _, c := range []struct {
		holder holder
		user   string
		err    error
	}{
		{holder{cn: []string{"web"}, dns: []string{"a.internal", "b.internal"}}, "both", nil},
		{holder{cn: []string{"web"}, dns: []string{"b.internal"}}, "rest", nil},
		{holder{dns: []string{"b.internal", "a.internal"}}, "sans", nil}, // two SANs, a pattern each
		{holder{cn: []string{"x"}, ou: []string{"derived"}}, "x", nil},
		{holder{cn: []string{"default"}, ou: []string{"derived"}}, "", ErrBadUser}, // and not rest
		{holder{}, "", ErrUnmapped},
	} {
		m, err := u.Match(f.subject(c.holder))
		if m.User != c.user || !errors.Is(err, c.err) || (err == nil) != (m.Rule != nil) {
			t.Errorf("%q: got %+v, %v, want %q, %v", c.holder.names(), m, err, c.user, c.err)
		}
	}
}

func TestDerivedUsers(t *testing.T) {
	f := newForge(t)
	long := strings.Repeat("a", 64)
	for _, c := range []struct{ template, cn, want string }{
		{"{cn}", "web", "web"},
		{"{cn}", "Web_1.x-y", "Web_1.x-y"},
		{"app-{cn}", "web", "app-web"},
		{"{cn}.{cn}", "web", "web.web"},
		{"app-{cn}", "default", "app-default"},
		{"{cn}", long, long},
		{"{cn}", long + "a", ""},
		{"a{cn}", long, ""},
		{"{cn}", "default", ""},
		{"{cn}", "Default", ""},
		{"{cn}", "DEFAULT", ""},
		{"def{cn}", "ault", ""},
		{"{cn}", ".", ""},
		{"{cn}", "..", ""},
		{".{cn}", ".", ""},
		{"{cn}", "a/b", ""},
		{"{cn}", "a b", ""},
		{"{cn}", "a\\b", ""},
		{"{cn}", "{cn}", ""},
		{"{cn}", "{user}", ""},
		{"{cn}", "wéb", ""},
		{"{cn}", "web\n", ""},
		{"{cn}", "web\x00", ""},
		{"{cn}", "", ""},
		{"app-{cn}", "", ""},
	} {
		u := parseUsers(t, `users: [{match: ["serial:1"], user: "`+c.template+`", password_env: P}]`)
		m, err := u.Match(f.subject(holder{cn: []string{c.cn}}))
		if m.User != c.want || (c.want == "") != errors.Is(err, ErrBadUser) {
			t.Errorf("%s of %q: got %q, %v, want %q", c.template, c.cn, m.User, err, c.want)
		}
		said := slices.Contains([]string{"", ".", "..", "{cn}", "ault"}, c.cn) || strings.EqualFold(c.cn, "default") // by the message itself
		if err != nil && !said && strings.Contains(err.Error(), c.cn) {
			t.Errorf("the error passes on what the certificate says: %q", err)
		}
	}
	u := parseUsers(t, `users: [{match: ["serial:1"], user: "{cn}", password_env: P}]`)
	for _, cns := range [][]string{nil, {"a", "b"}, {"a", "a"}, {"a", "\n"}} {
		if m, err := u.Match(f.subject(holder{cn: cns})); !errors.Is(err, ErrBadUser) {
			t.Errorf("common names %q: got %q, %v, want %v", cns, m.User, err, ErrBadUser)
		}
	}
}

func TestPasswordsAreReadAtEveryUse(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "secrets"), 0o700))
	u, err := ParseUsers(filepath.Join(dir, "users.yaml"), []byte(`
users:
  - {match: ["cn:file"], user: file, password_file: secrets/web}
  - {match: ["cn:absolute"], user: absolute, password_file: `+filepath.Join(dir, "secrets/web")+`}
  - {match: ["cn:env"], user: env, password_env: IDENTITY_TEST_PASSWORD}
  - {match: ["cn:*"], user: "x-{cn}", password_file: "secrets/{user}"}
`))
	must(t, err)
	rules := u.Rules()
	file, absolute, env, template := rules[0], rules[1], rules[2], rules[3]
	want := func(r *Rule, user, want string) {
		t.Helper()
		got, err := r.Password(user)
		if err != nil || got != want {
			t.Errorf("line %d: got %q, %v, want %q", r.Line, got, err, want)
		}
	}
	for content, password := range map[string]string{
		"hunter2": "hunter2", "hunter2\n": "hunter2", "hunter2\r\n": "hunter2", "hunter2\n\n": "hunter2\n", " a b ": " a b ",
	} {
		write("secrets/web", content)
		want(file, "file", password)
		want(absolute, "absolute", password)
		t.Setenv("IDENTITY_TEST_PASSWORD", content)
		want(env, "env", password)
	}
	write("secrets/x-one", "1")
	write("secrets/x-two", "2\n")
	want(template, "x-one", "1")
	want(template, "x-two", "2")
	must(t, u.CheckPasswords())

	for _, user := range []string{"../users.yaml", "", "..", "default", "a/b", "x\x00"} {
		if _, err := template.Password(user); !errors.Is(err, ErrBadUser) {
			t.Errorf("user %q: got %v, want %v", user, err, ErrBadUser)
		}
	}
	if _, err := template.Password("x-none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	} else if !strings.Contains(err.Error(), `"x-none" (line 6`) {
		t.Errorf("it names neither user nor line: %v", err)
	}

	write("secrets/web", "\n")
	t.Setenv("IDENTITY_TEST_PASSWORD", "")
	err = u.CheckPasswords()
	if err == nil || strings.Count(err.Error(), "it is empty") != 3 || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("got %v, want three faults with their lines", err)
	}
	write("secrets/web", strings.Repeat("hunter2", 10000))
	if _, err := file.Password("file"); err == nil || !strings.Contains(err.Error(), "64 KiB") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want that it is too large", err)
	}
	pipe := filepath.Join(dir, "secrets/web")
	must(t, os.Remove(pipe))
	must(t, syscall.Mkfifo(pipe, 0o600)) // nobody will ever write
	if _, err := file.Password("file"); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("got %v, want that it is no file", err)
	}
}

// People put the password itself where the name of its file or variable was wanted.
func TestErrorsHoldNoPassword(t *testing.T) {
	const secret = "hunter2-S3cret"
	for _, text := range []string{
		`users: [{match: ["cn:a"], user: a, password_file: ` + secret + `}]`,
		`users: [{match: ["cn:a"], user: a, password_env: ` + secret + `}]`,
		`users: [{match: ["cn:a"], user: a, password: ` + secret + `}]`,
		`users: [{match: ["cn:a"], user: a, password_file: *` + secret + `}]`,
		`users: [{match: ["cn:a"], user: a, password_file: &` + secret + ` x}]`,
		`users: [{match: ["cn:a"], user: a, password_file: !` + secret + ` x}]`,
		`users: [{match: ["cn:a"], user: a, password_file: !a!` + secret + ` x}]`,
		`users: [{match: ["cn:a"], user: a, password_file: [` + secret + `]}]`,
		`users: [{match: ["cn:a"], user: a, client_auth: ` + secret + `, password_env: P}]`,
		`users: [{match: ["cn:a"], user: a, password_file: "` + secret + `\q"}]`,
		"users:\n  - match: [\"cn:a\"]\n    password_file: " + secret + ": x\n",
		"users:\n  - password_file: \"" + secret + "\n",
	} {
		u, err := ParseUsers(filepath.Join(t.TempDir(), "users.yaml"), []byte(text))
		if err == nil {
			err = u.CheckPasswords()
		}
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v, want an error without the password", text, err)
		}
	}
}

func TestDigestKnowsWhatRulesMean(t *testing.T) {
	const one = `users: [{match: ["cn:a", "dns:B.x"], user: web, password_file: p, deny: [GET, SET]}]`
	base := parseUsers(t, one)
	for _, same := range []string{
		"# a comment\n\nusers:\n- user: 'web'\n  password_file: p # here\n  deny: [set, get, GET]\n  match:\n  - dns:b.x.\n  - cn:a\n  dry_run: false\n",
		"---\n" + one + "\n...\n",
		`{"users": [{"match": ["cn:a", "dns:b.x"], "user": "web", "password_file": "p", "deny": ["GET", "SET"]}]}`,
	} {
		u := parseUsers(t, same)
		if u.Digest() != base.Digest() || u.Rules()[0].Digest() != base.Rules()[0].Digest() {
			t.Errorf("another digest:\n%s", same)
		}
	}
	seen := map[[32]byte]string{base.Digest(): one}
	for _, other := range []string{
		strings.Replace(one, "cn:a", "cn:b", 1),
		strings.Replace(one, `"cn:a", `, "", 1),
		strings.Replace(one, "user: web", "user: web2", 1),
		strings.Replace(one, "password_file: p", "password_file: q", 1),
		strings.Replace(one, "password_file: p", "password_env: P", 1),
		strings.Replace(one, "deny:", "allow:", 1),
		strings.Replace(one, "GET, ", "", 1),
		strings.Replace(one, "user:", "client_auth: true, user:", 1),
		strings.Replace(one, "user:", "dry_run: true, user:", 1),
		strings.Replace(one, "}]", `}, {match: ["cn:z"], user: z, password_env: Z}]`, 1),
		strings.Replace(one, "[{", `[{match: ["cn:z"], user: z, password_env: Z}, {`, 1),
	} {
		sum := parseUsers(t, other).Digest()
		if seen[sum] != "" {
			t.Errorf("the same digest:\n%s\n%s", other, seen[sum])
		}
		seen[sum] = other
	}
	t.Setenv("P", "one")
	env := parseUsers(t, strings.Replace(one, "password_file: p", "password_env: P", 1))
	before := env.Digest()
	t.Setenv("P", "two")
	if env.Digest() != before {
		t.Error("the password is part of the digest")
	}
}
