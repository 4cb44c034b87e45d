package identity

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzParsePattern(f *testing.F) {
	for _, k := range kinds {
		_, example, _ := strings.Cut(k.form, "such as ")
		f.Add(strings.Split(example+";", ";")[0])
	}
	for _, text := range []string{
		"cn:*a*", "dns:*.Bücher.example.", "dns:a..b", "uri:SPIFFE://Prod/**/a/*", "uri:urn:a:b", "email:*@*.x",
		"serial:00:0A", "ca:sha256/" + base64Sum([32]byte{1}), "spki:sha256/" + strings.Repeat("aB", 32), "cn:a\x00",
	} {
		f.Add(text)
	}
	forged := newForge(f)
	subject := forged.subject(holder{cn: []string{"a"}, dns: []string{"a.b"}, uri: []string{"spiffe://prod/a/b"}, email: []string{"a@b"}})
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePattern(text)
		if err != nil {
			if !strings.Contains(err.Error(), "\nwant ") || len(err.Error()) > 2000 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := ParsePattern(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q became %q, and that %q, %v", text, p, again, err)
		}
		if again.Matches(subject) != p.Matches(subject) {
			t.Fatalf("%q and %q decide otherwise", text, p)
		}
	})
}

func FuzzParseUsers(f *testing.F) {
	examples, err := filepath.Glob("testdata/*.yaml")
	must(f, err)
	for _, path := range examples {
		text, err := os.ReadFile(path)
		must(f, err)
		f.Add(text)
	}
	f.Add([]byte("users: [{match: [\"cn:a\"], user: a, password_env: P}]\n---\n"))
	f.Add([]byte("users: &a [*a]\n"))
	f.Add([]byte("users:\n  - <<: {user: x}\n"))
	f.Add([]byte("\xff\xfeu\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := ParseUsers("users.yaml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "users.yaml") || len(err.Error()) > 100<<10 {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		text := printed(u)
		again, err := ParseUsers("users.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%q\nbecame\n%s\n%v", data, text, err)
		}
		if again.Digest() != u.Digest() || printed(again) != text {
			t.Fatalf("%q\nbecame\n%s\nand that\n%s", data, text, printed(again))
		}
	})
}

// printed is the file that says what u says.
func printed(u *Users) string {
	var b strings.Builder
	b.WriteString("users:\n")
	list := func(key string, items []string) {
		if len(items) > 0 {
			fmt.Fprintf(&b, ", %s: [%s]", key, strings.Join(quote(items), ", "))
		}
	}
	for _, r := range u.rules {
		fmt.Fprintf(&b, "  - {user: %s, client_auth: %v, dry_run: %v", double(r.User), r.ClientAuth, r.DryRun)
		list("match", canonical(r.patterns))
		list("allow", r.Allow)
		list("deny", r.Deny)
		if r.passwordEnv != "" {
			fmt.Fprintf(&b, ", password_env: %s", r.passwordEnv)
		} else {
			fmt.Fprintf(&b, ", password_file: %s", double(r.passwordFile))
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func quote(items []string) []string {
	all := make([]string, len(items))
	for i, item := range items {
		all[i] = double(item)
	}
	return all
}

// double quotes whatever a text may hold: YAML knows \UXXXXXXXX for characters.
func double(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		fmt.Fprintf(&b, `\U%08x`, r)
	}
	return b.String() + `"`
}
