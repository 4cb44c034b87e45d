package certs

import (
	"crypto/tls"
	"errors"
	"testing"

	"dragontls/certs/identity"
	"dragontls/certs/pki"
)

func (f *fixture) named(l pki.Leaf) tls.Certificate {
	f.t.Helper()
	l.Client = true
	p := f.issue(f.ca, l)
	c, err := tls.X509KeyPair(p.cert, p.key)
	f.must(err)
	return c
}

func (f *fixture) patterns(list ...string) []identity.Pattern {
	f.t.Helper()
	patterns, err := identity.ParsePatterns(list)
	f.must(err)
	return patterns
}

func TestAllowRefusesInTheHandshake(t *testing.T) {
	f := newFixture(t)
	f.opts.Login.Allow = f.patterns("dns:*.apps.internal", "cn:ops")
	s := f.open()
	for name, c := range map[string]struct {
		leaf pki.Leaf
		want error
	}{
		"by name":     {pki.Leaf{CN: "x", DNS: []string{"web.apps.internal"}}, nil},
		"by CN":       {pki.Leaf{CN: "ops"}, nil},
		"by the last": {pki.Leaf{CN: "x", DNS: []string{"other", "web.apps.internal"}}, nil},
		"no match":    {pki.Leaf{CN: "x", DNS: []string{"web.apps.external"}}, ErrNotAllowed},
		"two labels":  {pki.Leaf{CN: "x", DNS: []string{"a.b.apps.internal"}}, ErrNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			if _, err := f.admitted(s, f.as(f.named(c.leaf))); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestAllowFileChangesWhoMayStay(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		f.opts.Login.AllowFile = f.path("allow")
		f.write("allow", []byte("# who may come\ncn:client\n\ncn:other\n"))
		s := f.open()
		cs := f.wantAdmitted(s, f.client)
		addr, ticket := f.serve(s.TLSConfig()), f.resumer(version)
		f.wantResumed(addr, ticket, false, "first")
		f.wantResumed(addr, ticket, true, "second")
		f.write("allow", []byte("cn:nonsense*\ncm:x\n"))
		if _, err := s.Reload(); err == nil || s.Stats().ReloadsFailed[ReasonAllow] != 1 {
			t.Errorf("a bad file was taken: %v, %v", err, s.Stats().ReloadsFailed)
		}
		f.wantResumed(addr, ticket, true, "behind a bad file")
		f.write("allow", []byte("cn:other\n"))
		f.reload(s)
		if _, err := dial(addr, ticket); err == nil {
			t.Error("a ticket let in who is not allowed any more")
		}
		f.wantRefused(s, f.client, ErrNotAllowed)
		_, err := s.Snapshot().Recheck(&cs)
		var refused *ClientError
		if !errors.As(err, &refused) || refused.Reason() != "not_allowed" {
			t.Errorf("a live session: %v", err)
		}
	})
}

const usersOfTwo = `users:
  - match: ["cn:client"]
    user: web
    password_file: password
  - match: ["ou:services"]
    user: "app-{cn}"
    password_file: password
`

func TestUsersFileMapsOrRefuses(t *testing.T) {
	f := newFixture(t)
	f.write("password", []byte("secret\n"))
	f.write("users.yaml", []byte(usersOfTwo))
	f.opts.Login.UsersFile = f.path("users.yaml")
	s := f.open()
	user := func(l pki.Leaf) (string, error) {
		t.Helper()
		cs, err := f.admitted(s, f.as(f.named(l)))
		if err != nil {
			return "", err
		}
		p, err := s.Snapshot().Recheck(&cs)
		f.must(err)
		if p.Rule == nil || p.Identity == [32]byte{} || p.Name == "" || p.Serial == "" {
			t.Errorf("%+v: something is missing", p)
		}
		return p.User, nil
	}
	for _, c := range []struct {
		leaf pki.Leaf
		user string
		err  error
	}{
		{pki.Leaf{CN: "client"}, "web", nil},
		{pki.Leaf{CN: "x", OU: []string{"services"}}, "app-x", nil},
		{pki.Leaf{CN: "client", OU: []string{"services"}}, "web", nil},
		{pki.Leaf{CN: "a b", OU: []string{"services"}}, "", identity.ErrBadUser},
		{pki.Leaf{CN: "x"}, "", identity.ErrUnmapped},
	} {
		if got, err := user(c.leaf); got != c.user || !errors.Is(err, c.err) {
			t.Errorf("%+v: got %q, %v, want %q, %v", c.leaf, got, err, c.user, c.err)
		}
	}
	trust := s.Snapshot().Trust
	f.write("users.yaml", []byte("# a comment\n"+usersOfTwo))
	f.reload(s)
	if s.Snapshot().Trust != trust {
		t.Error("a comment changed trust")
	}
	for name, text := range map[string]string{
		"no YAML":             "users: [",
		"unknown key":         usersOfTwo + "    paswords: x\n",
		"password of no file": "users: [{match: ['cn:x'], user: x, password_file: missing}]\n",
	} {
		f.write("users.yaml", []byte(text))
		if _, err := s.Reload(); err == nil {
			t.Errorf("%s: taken into use", name)
		}
		if _, err := Open(f.opts); err == nil {
			t.Errorf("%s: a start takes it", name)
		}
	}
	if got := s.Stats().ReloadsFailed[ReasonUsers]; got != 3 {
		t.Errorf("failed reloads: %v", s.Stats().ReloadsFailed)
	}
}

func TestWithoutACertificateNobodyIsAllowedOrMapped(t *testing.T) {
	for name, change := range map[string]func(f *fixture){
		"allow": func(f *fixture) { f.opts.Login.Allow = f.patterns("cn:*") },
		"users": func(f *fixture) {
			f.write("password", []byte("x"))
			f.write("users.yaml", []byte(usersOfTwo))
			f.opts.Login.UsersFile = f.path("users.yaml")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.opts.ClientAuth = tls.VerifyClientCertIfGiven
			config := f.clientConfig()
			config.Certificates = nil
			if _, err := f.admitted(f.open(), config); err != nil {
				t.Fatalf("without rules: %v", err)
			}
			change(f)
			if _, err := f.admitted(f.open(), config); err == nil {
				t.Error("let in")
			}
		})
	}
}

func TestIdentityOutlivesARenewal(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	id := func(c tls.Certificate) [32]byte {
		t.Helper()
		cs := f.wantAdmitted(s, c)
		p, err := s.Snapshot().Recheck(&cs)
		f.must(err)
		return p.Identity
	}
	first := id(f.client)
	if first != id(f.clientOf(f.ca)) {
		t.Error("a renewed certificate is another identity")
	}
	if first == id(f.named(pki.Leaf{CN: "other"})) {
		t.Error("two names are one identity")
	}
	other := newCA(t, "root") // of the same name
	f.write("ca.crt", append(f.ca.PEM(), other.PEM()...))
	f.reload(s)
	if first == id(f.clientOf(other)) {
		t.Error("the same name under another CA is the same identity")
	}
}
