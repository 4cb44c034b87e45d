package certs

import (
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"dragontls/certs/identity"
	"dragontls/certs/pki"
)

// digestOf is the pattern that names the key of a certificate.
func digestOf(cert *x509.Certificate) string {
	b := &bundle{certs: []*x509.Certificate{cert}}
	for digest := range b.digestsInUse() {
		return "ca:sha256/" + digest
	}
	return ""
}

func TestLintFindsDigestsOfNoCAInTheBundle(t *testing.T) {
	f := newFixture(t)
	root, lone := mint(t, "root", nil, nil, nil), mint(t, "lone", nil, nil, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	known, foreign := digestOf(root.cert), digestOf(mint(t, "other", nil, nil, nil).cert)
	if known == foreign {
		t.Fatal(known)
	}
	var err error
	if f.opts.Login.Allow, err = identity.ParsePatterns([]string{known, "cn:web", foreign}); err != nil {
		t.Fatal(err)
	}
	f.opts.Login.AllowFile, f.opts.Login.UsersFile = f.path("allow"), f.path("users.yaml")
	f.write("allow", []byte("# ours\n"+known+"\ncn:x\n"))
	t.Setenv("LINT_PASSWORD", "p")
	f.write("users.yaml", []byte("users:\n"+
		"  - match: [\""+known+"\", \"cn:a\"]\n    user: a\n    password_env: LINT_PASSWORD\n"+
		"  - match: [\""+foreign+"\"]\n    user: b\n    password_env: LINT_PASSWORD\n"))
	for _, c := range []struct {
		bundle   *issued
		severity Severity
		subjects []string
		meaning  string
	}{
		{root, SeverityWarning, []string{"allow patterns", f.path("users.yaml") + ":5"}, "intermediate"},
		{lone, SeverityError, []string{"allow patterns", f.path("allow"), f.path("users.yaml") + ":2", f.path("users.yaml") + ":5"}, "matches no client"},
	} {
		f.trusts(c.bundle)
		var subjects []string
		for _, one := range Lint(f.open().Snapshot(), LintOptions{}) {
			if one.ID != "ca_digest_unknown" {
				continue
			}
			subjects = append(subjects, one.Subject)
			if one.Severity != c.severity || !strings.Contains(one.Message, c.meaning) || !strings.Contains(one.Cure, "openssl") {
				t.Errorf("got %+v, want %s and %q", one, c.severity, c.meaning)
			}
		}
		if !slices.Equal(subjects, c.subjects) {
			t.Errorf("got %q, want %q", subjects, c.subjects)
		}
	}
}

func TestLintBundlesFindsPrivateKeys(t *testing.T) {
	f := newFixture(t)
	pair := f.issue(f.ca, pki.Leaf{CN: "x", Client: true})
	legacy := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("x")})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	for name, c := range map[string]struct {
		more     []byte
		severity Severity
	}{
		"none": {nil, ""}, "plain": {pair.key, SeverityError}, "legacy": {legacy, SeverityWarning}, "encrypted": {encrypted, SeverityWarning},
		"both": {slices.Concat(pair.key, encrypted), SeverityError},
	} {
		f.write(name, slices.Concat(f.ca.PEM(), c.more, f.ca.PEM()))
		found := LintBundles(f.path(name), f.path(name), "", f.path("nowhere"))
		if c.severity == "" && len(found) == 0 && !HoldsKey(f.path(name)) {
			continue
		}
		wantIDs(t, found, "key_in_bundle")
		if len(found) != 1 || found[0].Severity != c.severity || found[0].Subject != f.path(name) || !HoldsKey(f.path(name)) {
			t.Errorf("%s: got %+v, want %s", name, found, c.severity)
		}
	}
}
