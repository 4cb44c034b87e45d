package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
)

// These are certificates that OpenSSL takes, or makes, and that crypto/x509 sees otherwise.

// writeIssued writes a certificate and its key for commands of OpenSSL.
func (f *fixture) writeIssued(name string, c *issued) {
	f.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	f.must(err)
	f.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	f.write(name+".crt", c.pem())
}

func (f *fixture) keyPair(name string) tls.Certificate {
	f.t.Helper()
	c, err := tls.X509KeyPair(f.read(name+".crt"), f.read(name+".key"))
	f.must(err)
	return c
}

func findingOf(found []Finding, id string) *Finding {
	if i := slices.IndexFunc(found, func(f Finding) bool { return f.ID == id }); i >= 0 {
		return &found[i]
	}
	return nil
}

// What "openssl x509 -req -signkey" makes in many tutorials.
func TestARootOfX509Version1IsTakenWithAWarning(t *testing.T) {
	f := newFixture(t)
	f.run("openssl req -new -newkey rsa:2048 -nodes -keyout old.key -subj /CN=old -out old.csr && openssl x509 -req -in old.csr -signkey old.key -days 30 -out old.crt")
	f.run("openssl req -new -newkey rsa:2048 -nodes -keyout client.key -subj /CN=client -out client.csr && " +
		"openssl x509 -req -in client.csr -CA old.crt -CAkey old.key -set_serial 7 -days 3 -out client.crt")
	f.write("ca.crt", slices.Concat(f.ca.PEM(), f.read("old.crt")))
	s := f.open()
	if got := s.Snapshot().clients.certs[1].Version; got != 1 {
		t.Skipf("this OpenSSL makes version %d", got)
	}
	f.wantAdmitted(s, f.keyPair("client"))
	f.wantAdmitted(s, f.client)
	found := findingOf(Lint(s.Snapshot(), LintOptions{}), "ca_version")
	if found == nil || found.Severity != SeverityWarning || found.Subject != f.path("ca.crt") {
		t.Errorf("finding %+v", found)
	}
	f.write("ca.crt", f.ca.PEM())
	f.reload(s)
	f.write("ca.crt", slices.Concat(f.ca.PEM(), f.read("old.crt")))
	f.reload(s)
	if f.log.count(`"id":"ca_version"`) != 1 {
		t.Errorf("a reload does not warn:\n%s", f.log.buf.String())
	}
}

// A version 1 certificate that somebody else has signed is no root, and one whose signature is not its own is nothing.
func TestOnlyARootOfVersion1StandsForItself(t *testing.T) {
	f := newFixture(t)
	f.run("openssl req -new -newkey rsa:2048 -nodes -keyout old.key -subj /CN=old -out old.csr && openssl x509 -req -in old.csr -signkey old.key -days 30 -out old.crt")
	f.run("openssl req -new -newkey rsa:2048 -nodes -keyout sub.key -subj /CN=sub -out sub.csr && " +
		"openssl x509 -req -in sub.csr -CA old.crt -CAkey old.key -set_serial 7 -days 3 -out sub.crt")
	damaged, _ := pem.Decode(f.read("old.crt"))
	damaged.Bytes[len(damaged.Bytes)-1] ^= 1
	for name, text := range map[string][]byte{"signed by another": f.read("sub.crt"), "damaged": pem.EncodeToMemory(damaged)} {
		f.write("ca.crt", slices.Concat(f.ca.PEM(), text))
		if _, err := Open(f.opts); !slices.Equal(reasons(err), []string{"ca.crt no_ca"}) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAPinnedCertificateStandsForItselfAlone(t *testing.T) {
	f := newFixture(t)
	leaf := func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = false, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	pinned := mint(t, "pinned", nil, nil, leaf)
	below := mint(t, "below", pinned, nil, leaf)
	twin := mint(t, "pinned", nil, nil, leaf) // the same name, another key
	sub := mint(t, "sub", pinned, nil, nil)
	deep := mint(t, "deep", sub, nil, leaf)
	f.write("ca.crt", slices.Concat(pinned.pem(), f.ca.PEM()))
	s := f.open()
	show := func(chain ...*issued) tls.Certificate {
		c := tls.Certificate{PrivateKey: chain[0].key, Leaf: chain[0].cert}
		for _, one := range chain {
			c.Certificate = append(c.Certificate, one.cert.Raw)
		}
		return c
	}
	cs := f.wantAdmitted(s, show(pinned))
	if p, err := s.Snapshot().Recheck(&cs); err != nil || p.Name == "" || p.Identity == [32]byte{} {
		t.Errorf("%+v, %v", p, err)
	}
	f.wantAdmitted(s, f.client)
	for name, client := range map[string]tls.Certificate{
		"signed by it": show(below), "signed by it, with it": show(below, pinned), "of the same name": show(twin), "below a CA that it signed": show(deep, sub, pinned),
	} {
		if _, err := f.admitted(s, f.insisting(client)); !errors.Is(err, ErrClientUntrusted) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// It is revoked by taking it out of the bundle.
	f.write("ca.crt", f.ca.PEM())
	f.reload(s)
	if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, ErrClientUntrusted) {
		t.Errorf("a live session: %v", err)
	}
	// Nobody can issue a CRL of it: where one is required, it is refused, and check says so.
	f.write("ca.crt", slices.Concat(pinned.pem(), f.ca.PEM()))
	f.withCRL(f.revoking(f.ca))
	s = f.open()
	f.wantRefused(s, show(pinned), ErrNoCRL)
	if found := findingOf(Lint(s.Snapshot(), LintOptions{}), "crl_missing"); found == nil || !strings.Contains(found.Message, "no CA") {
		t.Errorf("finding %+v", found)
	}
}

func TestALeafThatMayNotSignIsRefused(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		ca := mint(t, "ca", nil, nil, nil)
		f.write("ca.crt", slices.Concat(ca.pem(), f.ca.PEM()))
		s := f.open()
		for usage, want := range map[x509.KeyUsage]error{
			x509.KeyUsageKeyEncipherment: ErrClientInvalid, x509.KeyUsageKeyAgreement: ErrClientInvalid,
			x509.KeyUsageDigitalSignature: nil, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment: nil, 0: nil,
		} {
			leaf := mint(t, "client", ca, nil, func(c *x509.Certificate) {
				c.IsCA, c.KeyUsage, c.ExtKeyUsage = false, usage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			})
			config := f.as(tls.Certificate{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key})
			config.MinVersion, config.MaxVersion = version, version
			if _, err := f.admitted(s, config); !errors.Is(err, want) {
				t.Errorf("usage %b: got %v, want %v", usage, err, want)
			}
		}
	})
}

func TestCheckFindsAServedLeafThatMayNotSign(t *testing.T) {
	f := newFixture(t)
	ca := mint(t, "ca", nil, nil, nil)
	for usage, wanted := range map[x509.KeyUsage]bool{x509.KeyUsageKeyEncipherment: true, x509.KeyUsageDigitalSignature: false, 0: false} {
		leaf := mint(t, "localhost", ca, nil, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.DNSNames = false, usage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, []string{"localhost"}
		})
		f.writeIssued("server", leaf)
		c, err := OpenClient(ClientOptions{CertFile: f.path("server.crt"), KeyFile: f.path("server.key")})
		f.must(err)
		for name, found := range map[string][]Finding{"served": Lint(f.open().Snapshot(), LintOptions{}), "to the backend": LintClient(c, LintOptions{}),
			"of the backend": LintPeer("address", []*x509.Certificate{leaf.cert}, LintOptions{})} {
			if got := findingOf(found, "key_usage"); (got != nil) != wanted || wanted && got.Severity != SeverityError {
				t.Errorf("usage %b, %s: finding %+v", usage, name, got)
			}
		}
	}
}

func TestASignatureThatIsNotAcceptedHasAReasonOfItsOwn(t *testing.T) {
	f := newFixture(t)
	ca := mint(t, "rsa ca", nil, rsaKey(t, 2048), nil)
	f.writeIssued("rsaca", ca)
	f.write("ca.crt", slices.Concat(ca.pem(), f.ca.PEM()))
	f.write("ext", []byte("extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n"))
	f.write("caext", []byte("basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n"))
	s := f.open()
	issue := func(name, by, ext, options string) {
		f.run("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout " + name + ".key -subj /CN=" + name + " -out " + name + ".csr && " +
			"openssl x509 -req -in " + name + ".csr -CA " + by + ".crt -CAkey " + by + ".key -set_serial 7 -days 3 -extfile " + ext + " -out " + name + ".crt " + options)
	}
	const pss = "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:"
	for name, c := range map[string]struct {
		options string
		want    error
		says    string
	}{
		"sha256": {"-sha256", nil, ""}, "pss": {pss + "32", nil, ""},
		"sha1":  {"-sha1", ErrClientSignature, "certificate 1 is signed with SHA1-RSA"},
		"pss20": {pss + "20", ErrClientSignature, "RSA-PSS"},
	} {
		issue(name, "rsaca", "ext", c.options)
		_, err := f.admitted(s, f.as(f.keyPair(name)))
		if !errors.Is(err, c.want) || c.want != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if refused, ok := errors.AsType[*ClientError](err); c.want != nil && (!ok || refused.Reason() != "signature_algorithm") {
			t.Errorf("%s: reason of %v", name, err)
		}
	}
	// The same of a CA that the client sends.
	issue("sub", "rsaca", "caext", "-sha1")
	issue("under", "sub", "ext", "-sha256")
	client := f.keyPair("under")
	sub, _ := pem.Decode(f.read("sub.crt"))
	client.Certificate = append(client.Certificate, sub.Bytes)
	if _, err := f.admitted(s, f.as(client)); !errors.Is(err, ErrClientSignature) || !strings.Contains(err.Error(), "certificate 2") {
		t.Errorf("of a CA: got %v", err)
	}
	// Where nobody of the issuer's name is trusted, that is what is wrong.
	f.write("ca.crt", f.ca.PEM())
	f.reload(s)
	if _, err := f.admitted(s, f.insisting(f.keyPair("sha1"))); !errors.Is(err, ErrClientUntrusted) {
		t.Errorf("of an unknown CA: got %v", err)
	}
}

func TestCheckFindsCAsThatRefuseAllTheirClients(t *testing.T) {
	f := newFixture(t)
	f.write("conf", []byte("[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN=limited\n[ext]\nbasicConstraints=critical,CA:TRUE\n"+
		"keyUsage=keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nnameConstraints=critical,permitted;dirName:allowed\n[allowed]\nO=Example\n"))
	f.run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout limited.key -config conf -days 30 -out limited.crt")
	f.run("openssl req -x509 -newkey rsa-pss -pkeyopt rsa_keygen_bits:2048 -nodes -keyout x -subj /CN=pss -days 30 -out pss.crt")
	f.run("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout client.key -subj /O=Example/CN=client -out client.csr && " +
		"openssl x509 -req -in client.csr -CA limited.crt -CAkey limited.key -set_serial 7 -days 3 -out client.crt")
	f.write("ca.crt", slices.Concat(f.ca.PEM(), f.read("limited.crt"), f.read("pss.crt")))
	s := f.open()
	if _, err := f.admitted(s, f.as(f.keyPair("client"))); err == nil {
		t.Error("the client is not refused any more: the finding is wrong")
	}
	f.wantAdmitted(s, f.client)
	c, err := OpenClient(ClientOptions{CAFile: f.path("ca.crt")})
	f.must(err)
	for name, found := range map[string][]Finding{"clients": Lint(s.Snapshot(), LintOptions{}), "backend": LintClient(c, LintOptions{})} {
		critical, unusable := findingOf(found, "critical_extension"), findingOf(found, "unusable_key")
		if critical == nil || critical.Severity != SeverityError || !strings.Contains(critical.Message, "CN=limited") || !strings.Contains(critical.Message, "directoryName") {
			t.Errorf("%s: finding %+v", name, critical)
		}
		if unusable == nil || !strings.Contains(unusable.Message, "an RSA-PSS key") {
			t.Errorf("%s: finding %+v", name, unusable)
		}
	}
}

func TestTheCureOfAKeysModeSaysHowKubernetesDoesIt(t *testing.T) {
	f := newFixture(t)
	f.write("open.key", nil)
	f.run("chmod 0644 open.key")
	found := LintKeys(f.path("open.key"))
	if len(found) != 1 || !strings.Contains(found[0].Cure, "fsGroup") || !strings.Contains(found[0].Cure, "defaultMode: 0440") {
		t.Errorf("findings %+v", found)
	}
}
