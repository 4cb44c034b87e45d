package identity

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func faultsOf(t testing.TB, text string) *Faults {
	t.Helper()
	_, err := ParseUsers("users.yaml", []byte(text))
	f, ok := errors.AsType[*Faults](err)
	if !ok {
		t.Fatalf("accepted:\n%s", cut(text, 300))
	}
	return f
}

func TestUsersFileFaults(t *testing.T) {
	rule := func(fields string) string { return "users:\n  - {" + fields + "}\n" }
	const valid = `match: ["cn:a"], user: web, password_env: P`
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "users.yaml: the file is empty"},
		{"only a comment", "# users\n", "users.yaml: the file is empty"},
		{"only a document mark", "---\n", "the file is nothing, not a mapping"},
		{"no users", "{}", "users.yaml:1: the file has no users"},
		{"null", "users:\n", "users.yaml:1: users is nothing, not a list"},
		{"no rule", "users: []\n", "every client is refused"},
		{"a list", "- match: []\n", "users.yaml:1: the file is a list, not a mapping"},
		{"a mapping of users", "users: {web: x}\n", "users.yaml:1: users is a mapping, not a list"},
		{"text", "web\n", "the file is a string, not a mapping"},
		{"a rule that is text", "users: [web]\n", "users.yaml:1: rule 1 is a string, not a mapping"},
		{"unknown key of the file", "users: [{" + valid + "}]\nuser: x\n", `users.yaml:2: the file: unknown key "user"`},
		{"unknown key of a rule", rule(valid + ", passwd: x"), `users.yaml:2: rule 1: unknown key "passwd"`},
		{"another case", rule(valid + ", Deny: [GET]"), `unknown key "Deny"`},
		{"a key that is a list", rule(valid + ", [a]: x"), `users.yaml:2: rule 1: unknown key ""`},
		{"merge", "users:\n  - <<: {" + valid + "}\n", `users.yaml:2: rule 1: unknown key "<<"`},
		{"twice", "users:\n  - user: a\n    match: [\"cn:a\"]\n    user: b\n    password_env: P\n", "users.yaml:4: rule 1: user is there twice, first in line 2"},
		{"users twice", "users: [{" + valid + "}]\nusers: [{" + valid + "}]\n", "users.yaml:2: the file: users is there twice"},
		{"no match", rule("user: web, password_env: P"), "users.yaml:2: rule 1: match is missing"},
		{"empty match", rule("match: [], user: web, password_env: P"), "users.yaml:2: rule 1: match is empty"},
		{"match is text", rule(`match: "cn:a", user: web, password_env: P`), "rule 1: match is a string, not a list"},
		{"a blank behind the kind", rule(`match: [cn: web], user: web, password_env: P`), "rule 1: match is a mapping, not a string\n  put it in quotes"},
		{"a pattern", rule(`match: ["cm:web"], user: web, password_env: P`), `users.yaml:2: rule 1: pattern "cm:web": it does not start with a known kind`},
		{"an empty pattern", rule(`match: [""], user: web, password_env: P`), "rule 1: match is empty"},
		{"no user", rule(`match: ["cn:a"], password_env: P`), "rule 1: user is missing"},
		{"a number", rule(`match: ["cn:a"], user: 12, password_env: P`), "rule 1: user is a number, not a string\n  put it in quotes"},
		{"empty user", rule(`match: ["cn:a"], user: "", password_env: P`), "rule 1: user is empty"},
		{"user null", rule(`match: ["cn:a"], user: ~, password_env: P`), "rule 1: user is nothing, not a string"},
		{"user with a blank", rule(`match: ["cn:a"], user: "a b", password_env: P`), "rule 1: user holds a blank"},
		{"user with CR LF", rule(`match: ["cn:a"], user: "a\r\nb", password_env: P`), "rule 1: user holds a blank"},
		{"user outside ASCII", rule(`match: ["cn:a"], user: "wéb", password_env: P`), "rule 1: user holds a blank"},
		{"unknown placeholder", rule(`match: ["cn:a"], user: "{ou}", password_env: P`), "the only placeholder is {cn}"},
		{"open brace", rule(`match: ["cn:a"], user: "{cn}{", password_env: P`), "rule 1: user holds a brace"},
		{"impossible template", rule(`match: ["cn:a"], user: "app/{cn}", password_env: P`), "rule 1: no user can come of this template"},
		{"no password", rule(`match: ["cn:a"], user: web`), "one of password_file and password_env is needed"},
		{"two passwords", rule(valid + ", password_file: p"), "one of password_file and password_env is needed"},
		{"empty password_file", rule(`match: ["cn:a"], user: web, password_file: ""`), "password_file is empty"},
		{"{cn} in a path", rule(`match: ["cn:a"], user: "{cn}", password_file: "{cn}"`), "rule 1: password_file holds {cn}\n  write {user}"},
		{"{user} without a template", rule(`match: ["cn:a"], user: web, password_file: "/s/{user}"`), "user is no template"},
		{"a variable's name", rule(`match: ["cn:a"], user: web, password_env: web-password`), "rule 1: password_env is no name of a variable"},
		{"client_auth", rule(valid + ", client_auth: yes"), "rule 1: client_auth is a string, neither true nor false"},
		{"dry_run", rule(valid + ", dry_run: 1"), "rule 1: dry_run is a number, neither true nor false"},
		{"empty allow", rule(valid + ", allow: []"), "rule 1: allow is empty\n  leave it out"},
		{"allow null", rule(valid + ", allow: "), "rule 1: allow is nothing, not a list"},
		{"a command", rule(valid + `, allow: ["GET SET"]`), `rule 1: allow: "GET SET" is no rule for commands`},
		{"a category", rule(valid + `, deny: ["@re ad"]`), "is no rule for commands"},
		{"two bars", rule(valid + `, deny: ["A|B|C"]`), "is no rule for commands"},
		{"a long name", rule(valid + `, deny: [` + strings.Repeat("A", 65) + `]`), "is no rule for commands"},
		{"hidden", "users:\n  - {" + valid + "}\n  - {match: [\"cn:a\", \"cn:a\"], user: b, password_env: P}\n", "users.yaml:3: rule 2: it is never reached: the rule in line 2 matches the same"},
		{"no YAML", "users: [\n", "users.yaml:"},
		{"a tab", "users:\n\t- a\n", "users.yaml:2: the file is no YAML"},
		{"control characters", "users: \x01\n", "the file is no YAML"},
		{"two documents", "users: [{" + valid + "}]\n---\nusers: []\n", "users.yaml:2: the file holds more than one YAML document"},
		{"second document broken", "users: [{" + valid + "}]\n---\n[\n", "the file is no YAML"},
		{"anchor", "users:\n  - &a {" + valid + "}\n", "users.yaml:2: anchors and aliases"},
		{"alias", "users:\n  - &a {" + valid + "}\n  - *a\n", "anchors and aliases"},
		{"unknown alias", "users:\n  - *a\n", "users.yaml:2: anchors and aliases"},
		{"an alias to itself", "users: &a [*a]\n", "anchors and aliases"},
		{"a star without a kind", rule(`match: [*.apps], user: a, password_env: P`), "anchors and aliases"},
		{"a tag", rule(`match: ["cn:a"], user: !!binary d2Vi, password_env: P`), "rule 1: user is of another type, not a string"},
		{"a tag of their own", rule(`match: ["cn:a"], user: !x web, password_env: P`), "rule 1: user is of another type, not a string"},
		{"too large", "#" + strings.Repeat("x", 1<<20) + "\n", "users.yaml: the file is larger than 1 MiB"},
		{"too many rules", "users:\n" + strings.Repeat("- {}\n", 10001), "10001 rules: more than 10000"},
		{"too deep", "users: " + strings.Repeat("[", 1<<19), "users.yaml"},
		{"too deep in blocks", "users:\n" + strings.Repeat("- ", 1<<19), "users.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := faultsOf(t, c.text).Error(); !strings.Contains(got, c.want) {
				t.Fatalf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestAllFaultsOfAUsersFileAtOnce(t *testing.T) {
	f := faultsOf(t, `users:
  - match: ["cm:web", "serial:z"]
    user: "a b"
    passwort_file: p
  - match: ["cn:b"]
    user: b
    password_env: P
    client_auth: maybe
`)
	want := `users.yaml:2: rule 1: pattern "cm:web": it does not start with a known kind
  want one of cn: ou: dns: uri: email: serial: spki: ca:
users.yaml:2: rule 1: pattern "serial:z": it is not a hexadecimal number
  want serial:HEX, such as serial:0a1b; leading zeros, upper case and colons between bytes are accepted
users.yaml:3: rule 1: user holds a blank, a control character or something else than ASCII
users.yaml:4: rule 1: unknown key "passwort_file"
  a rule has match, user, password_file or password_env, client_auth, allow, deny, dry_run
users.yaml:2: rule 1: one of password_file and password_env is needed
  name one of them
users.yaml:8: rule 2: client_auth is a string, neither true nor false
  write true or false`
	if got := f.Error(); got != want {
		t.Fatalf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestReportOfFaultsIsBounded(t *testing.T) {
	f := faultsOf(t, "users:\n"+strings.Repeat("- web\n", 9000))
	if len(f.List) != maxFaults || !strings.HasSuffix(f.Error(), fmt.Sprintf("users.yaml: and %d faults more", 9000-maxFaults)) {
		t.Fatalf("%d faults, the end is %q", len(f.List), f.Error()[len(f.Error())-60:])
	}
}

func TestThousandsOfRules(t *testing.T) {
	var b strings.Builder
	b.WriteString("users:\n")
	for i := range 10000 {
		fmt.Fprintf(&b, "- {match: [\"cn:service-%d\"], user: s%d, password_file: \"s/%d\"}\n", i, i, i)
	}
	u := parseUsers(t, b.String())
	f := newForge(t)
	m, err := u.Match(f.subject(holder{cn: []string{"service-9999"}}))
	must(t, err)
	if m.User != "s9999" || m.Rule.Line != 10001 {
		t.Fatalf("got %q of line %d", m.User, m.Rule.Line)
	}
}
