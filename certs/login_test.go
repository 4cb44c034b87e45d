package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"slices"
	"testing"
	"time"

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

func TestAPasswordThatWentAwayHoldsBackNoOtherFile(t *testing.T) {
	f := newFixture(t)
	f.write("password", []byte("secret\n"))
	f.write("users.yaml", []byte(usersOfTwo))
	f.opts.Login.UsersFile = f.path("users.yaml")
	compiled := 0
	f.opts.Login.CheckUsers = func(*identity.Users) error { compiled++; return nil }
	f.withCRL(f.revoking(f.ca))
	s := f.open()
	f.must(os.Remove(f.path("password")))
	f.write("ca.crl", f.revoking(f.ca, f.client))
	f.reload(s)
	f.wantRefused(s, f.client, ErrClientRevoked)
	if compiled != 1 {
		t.Errorf("the file was taken to pieces %d times", compiled)
	}
	f.write("users.yaml", []byte("# anew\n"+usersOfTwo))
	if _, err := s.Reload(); err == nil {
		t.Error("a new file whose password is missing was taken")
	}
}

// The client chooses which chains are built by what it sends; the users file decides among them.
func TestTheFirstRuleWinsAcrossChains(t *testing.T) {
	f := newFixture(t)
	other := newCA(t, "other")
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	crossed := f.crossSigned(sub, other)
	f.write("ca.crt", slices.Concat(f.ca.PEM(), other.PEM()))
	rule := "users:\n  - {match: ['ca:sha256/" + spkiOf(f.ca) + "', 'cn:client'], user: restricted, password_file: password}\n" +
		"  - {match: ['cn:client'], user: web, password_file: password}\n"
	f.write("password", []byte("x"))
	f.write("users.yaml", []byte(rule))
	f.opts.Login.UsersFile = f.path("users.yaml")
	s := f.open()
	client := f.clientOf(sub)
	client.Certificate = append(client.Certificate, crossed)
	for range 2 { // whichever comes first
		cs := f.wantAdmitted(s, client)
		p, err := s.Snapshot().Recheck(&cs)
		f.must(err)
		if p.User != "restricted" {
			t.Errorf("acts as %q", p.User)
		}
		client.Certificate[1], client.Certificate[2] = client.Certificate[2], client.Certificate[1]
	}
}

// Another root that signed the same intermediate comes into the bundle: nobody becomes somebody else.
func TestAnotherRootMovesNobody(t *testing.T) {
	f := newFixture(t)
	other := newCA(t, "other")
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	s := f.open()
	client := f.clientOf(sub)
	client.Certificate = append(client.Certificate, f.crossSigned(sub, other))
	cs := f.wantAdmitted(s, client)
	before, err := s.Snapshot().Recheck(&cs)
	f.must(err)
	f.write("ca.crt", slices.Concat(f.ca.PEM(), other.PEM()))
	f.reload(s)
	live, err := s.Snapshot().Recheck(&cs)
	f.must(err)
	again := f.wantAdmitted(s, client)
	fresh, err := s.Snapshot().Recheck(&again)
	f.must(err)
	if live.Identity != before.Identity || fresh.Identity != before.Identity {
		t.Error("the client is somebody else now")
	}
}

// crossSigned is sub's certificate by another CA, DER.
func (f *fixture) crossSigned(sub, by *pki.CA) []byte {
	f.t.Helper()
	old, err := x509.ParseCertificate(der(sub.PEM()))
	f.must(err)
	parent, err := x509.ParseCertificate(der(by.PEM()))
	f.must(err)
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: old.Subject, NotBefore: old.NotBefore, NotAfter: old.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: old.KeyUsage, SubjectKeyId: old.SubjectKeyId,
	}, parent, old.PublicKey, by.Signer())
	f.must(err)
	return raw
}

func spkiOf(ca *pki.CA) string {
	cert, err := x509.ParseCertificate(der(ca.PEM()))
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// A GeneralName in constructed form is none to crypto/x509, whose name constraints never see it.
func TestNameConstraintsHoldForEverySAN(t *testing.T) {
	f := newFixture(t)
	sub, key := f.constrained("team-a.internal")
	f.write("password", []byte("x"))
	f.write("users.yaml", []byte(`users:
  - {match: ["dns:*.team-a.internal"], user: team, password_file: password}
  - {match: ["dns:web.apps.internal"], user: web, password_file: password}
  - {match: ["uri:spiffe://prod/web"], user: web, password_file: password}
  - {match: ["email:a@apps.internal"], user: web, password_file: password}
`))
	f.opts.Login.UsersFile = f.path("users.yaml")
	s := f.open()
	for _, c := range []struct {
		tag         int
		name        string
		constructed bool
		in          bool
	}{
		{2, "x.team-a.internal", false, true},
		{2, "x.team-a.internal", true, false},
		{2, "web.apps.internal", false, false},
		{2, "web.apps.internal", true, false},
		{6, "spiffe://prod/web", true, false},
		{1, "a@apps.internal", true, false},
	} {
		name, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: c.tag, IsCompound: c.constructed, Bytes: []byte(c.name)})
		f.must(err)
		names, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: name})
		f.must(err)
		client := f.signed(&x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}}}, sub, key)
		if _, err := f.admitted(s, f.as(client)); (err == nil) != c.in {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// constrained is a CA below the fixture's that may issue for one DNS domain only.
func (f *fixture) constrained(domain string) (*x509.Certificate, *ecdsa.PrivateKey) {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	root, err := x509.ParseCertificate(der(f.ca.PEM()))
	f.must(err)
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "constrained"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, PermittedDNSDomainsCritical: true,
		PermittedDNSDomains: []string{domain}, PermittedURIDomains: []string{domain}, PermittedEmailAddresses: []string{domain},
	}, root, key.Public(), f.ca.Signer())
	f.must(err)
	sub, err := x509.ParseCertificate(raw)
	f.must(err)
	return sub, key
}

// signed fills the template in and signs it; the client sends its issuer too.
func (f *fixture) signed(template, issuer *x509.Certificate, by *ecdsa.PrivateKey) tls.Certificate {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	template.SerialNumber, template.Subject = big.NewInt(3), pkix.Name{CommonName: "x"}
	template.NotBefore, template.NotAfter = issuer.NotBefore, issuer.NotAfter
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	raw, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), by)
	f.must(err)
	leaf, err := x509.ParseCertificate(raw)
	f.must(err)
	return tls.Certificate{Certificate: [][]byte{raw, issuer.Raw}, PrivateKey: key, Leaf: leaf}
}
