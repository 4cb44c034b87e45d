package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// issued is a certificate that package pki would not make, and its key.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// mint signs a CA, or what edit makes of it, by parent; nil: by itself.
func mint(t testing.TB, name string, parent *issued, key crypto.Signer, edit func(*x509.Certificate)) *issued {
	t.Helper()
	if key == nil {
		key = curveKey(t, elliptic.P256())
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(3650 * 24 * time.Hour),
	}
	if edit != nil {
		edit(template)
	}
	if parent == nil {
		parent = &issued{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

// leaf makes a template one of a server.
func leaf(edit func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.DNSNames = []string{"localhost"}
		c.NotAfter = time.Now().Add(90 * 24 * time.Hour)
		if edit != nil {
			edit(c)
		}
	}
}

func curveKey(t testing.TB, c elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func chainPEM(chain ...*issued) []byte {
	var all []byte
	for _, c := range chain {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})...)
	}
	return all
}

// serves writes a chain and the key of its leaf as a pair, and a bundle of client CAs.
func (f *fixture) serves(name string, chain ...*issued) {
	f.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(chain[0].key)
	f.must(err)
	f.writePair(name, pemPair{chainPEM(chain...), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})})
}

func (f *fixture) trusts(bundle ...*issued) {
	f.t.Helper()
	f.write("ca.crt", chainPEM(bundle...))
}

func (f *fixture) secondPair(name string) {
	f.opts.CertFiles = append(f.opts.CertFiles, f.path(name+".crt"))
	f.opts.KeyFiles = append(f.opts.KeyFiles, f.path(name+".key"))
}

func ids(found []Finding) []string {
	var list []string
	for _, f := range found {
		list = append(list, f.ID)
	}
	slices.Sort(list)
	return list
}

// wantIDs wants exactly these, and each to say of what and what to do.
func wantIDs(t *testing.T, found []Finding, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := ids(found); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v\n%+v", got, want, found)
	}
	for _, f := range found {
		if f.Subject == "" || f.Message == "" || f.Cure == "" || f.Severity != SeverityError && f.Severity != SeverityWarning {
			t.Errorf("incomplete: %+v", f)
		}
	}
}

func inDays(days int) time.Time { return time.Now().Add(time.Duration(days) * 24 * time.Hour) }

type lintCase struct {
	name  string
	setup func(t *testing.T, f *fixture, o *LintOptions)
	want  []string // none: a good deployment
}

// lintCases hold deployments that load: what crypto/tls would refuse never comes to Lint.
var lintCases = []lintCase{
	{"a leaf of a root that is a client CA", func(*testing.T, *fixture, *LintOptions) {}, nil},
	{"an intermediate is sent, its root is unknown here", func(t *testing.T, f *fixture, o *LintOptions) {
		ca := mint(t, "issuing", mint(t, "private root", nil, nil, nil), nil, nil)
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)), ca)
		o.Hosts = []string{"localhost"}
	}, nil},
	{"an intermediate is sent, and both CAs are client CAs", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "root", nil, nil, nil)
		ca := mint(t, "issuing", root, nil, nil)
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)), ca)
		f.trusts(root, ca)
	}, nil},
	{"the issuing CA is what is trusted here, its root is not", func(t *testing.T, f *fixture, o *LintOptions) {
		ca := mint(t, "issuing", mint(t, "root", nil, nil, nil), nil, nil)
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)))
		f.trusts(ca)
	}, nil},
	{"a leaf of a root that the system knows", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "public", nil, nil, nil)
		o.Roots.AddCert(root.cert)
		o.Hosts = []string{"localhost"}
		f.serves("server", mint(t, "server", root, nil, leaf(func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://ca.example/ca.crt"} })))
	}, nil},
	{"several pairs, a wildcard, an address", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1), net.IPv6loopback}, Server: true}))
		f.writePair("second", f.issue(f.ca, pki.Leaf{DNS: []string{"*.cache.example"}, Server: true}))
		f.secondPair("second")
		o.Hosts = []string{"LOCALHOST", "a.cache.example", "10.0.0.1", "::1", "[::1]"}
	}, nil},
	{"a day is long for a certificate of a day", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true,
			NotBefore: time.Now().Add(-10 * time.Hour), NotAfter: time.Now().Add(14 * time.Hour)}))
	}, nil},
	{"398 days", func(t *testing.T, f *fixture, o *LintOptions) {
		begin := time.Now().Add(-time.Hour)
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true, NotBefore: begin, NotAfter: begin.Add(398 * 24 * time.Hour)}))
	}, nil},
	{"an RSA key of 2048 bits, and a root that signed itself with SHA-1", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "old root", nil, rsaKey(t, 2048), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
		f.serves("server", mint(t, "server", root, rsaKey(t, 2048), leaf(nil)))
		f.trusts(root)
	}, nil},
	{"SPIFFE", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "other", nil, nil, nil)
		o.Roots.AddCert(root.cert)
		f.serves("server", mint(t, "server", root, nil, leaf(func(c *x509.Certificate) {
			c.DNSNames, c.URIs = nil, []*url.URL{{Scheme: "spiffe", Host: "prod", Path: "/cache"}}
		})))
	}, nil},
	{"a client CA that is a root and cross-signed by an older one", func(t *testing.T, f *fixture, o *LintOptions) {
		older := mint(t, "older root", nil, nil, nil)
		root := mint(t, "root", nil, nil, nil)
		crossed := mint(t, "root", older, root.key, nil)
		f.serves("server", mint(t, "server", root, nil, leaf(nil)))
		f.trusts(older, crossed, root)
	}, nil},
	{"no client CA", func(t *testing.T, f *fixture, o *LintOptions) {
		f.opts.ClientAuth, f.opts.ClientCAFile = tls.NoClientCert, ""
	}, nil},

	{"an RSA key of 1024 bits", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true, Key: rsaKey(t, 1024)}))
	}, []string{"weak_key"}},
	{"a key on P-224, of the second pair", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("second", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true, Key: curveKey(t, elliptic.P224())}))
		f.secondPair("second")
	}, []string{"weak_key"}},
	{"a client CA of 1024 bits", func(t *testing.T, f *fixture, o *LintOptions) {
		f.trusts(mint(t, "weak", nil, rsaKey(t, 1024), nil))
	}, []string{"weak_key"}},
	{"a leaf signed with SHA-1", func(t *testing.T, f *fixture, o *LintOptions) {
		f.serves("server", mint(t, "server", mint(t, "other", nil, nil, nil), nil, leaf(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 })))
	}, []string{"weak_signature", "chain_not_verified"}},
	{"an intermediate signed with SHA-1", func(t *testing.T, f *fixture, o *LintOptions) {
		ca := mint(t, "issuing", mint(t, "root", nil, rsaKey(t, 2048), nil), nil, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)), ca)
	}, []string{"weak_signature"}},
	{"a client CA below a root, signed with SHA-1", func(t *testing.T, f *fixture, o *LintOptions) {
		f.trusts(mint(t, "issuing", mint(t, "root", nil, nil, nil), nil, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }))
	}, []string{"weak_signature"}},
	{"399 days", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true, NotAfter: inDays(399)}))
	}, []string{"long_validity"}},
	{"29 of 90 days are left", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true, NotBefore: inDays(-61), NotAfter: inDays(29)}))
	}, []string{"expires_soon"}},
	{"a third of a day is left", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true,
			NotBefore: time.Now().Add(-17 * time.Hour), NotAfter: time.Now().Add(7 * time.Hour)}))
	}, []string{"expires_soon"}},
	{"60 days are left and 61 are asked for", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true, NotBefore: inDays(-240), NotAfter: inDays(60)}))
		o.ExpiryWarning = 61 * 24 * time.Hour
	}, []string{"expires_soon"}},
	{"an intermediate that ends soon", func(t *testing.T, f *fixture, o *LintOptions) {
		ca := mint(t, "issuing", mint(t, "root", nil, nil, nil), nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = inDays(-500), inDays(20) })
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)), ca)
	}, []string{"expires_soon"}},
	{"an intermediate that has expired", func(t *testing.T, f *fixture, o *LintOptions) {
		ca := mint(t, "issuing", mint(t, "root", nil, nil, nil), nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = inDays(-500), inDays(-1) })
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)), ca)
	}, []string{"expired"}},
	{"one client CA of two has expired", func(t *testing.T, f *fixture, o *LintOptions) {
		f.trusts(mint(t, "new", nil, nil, nil), mint(t, "old", nil, nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = inDays(-500), inDays(-1) }))
	}, []string{"expired"}},
	{"one client CA of two begins tomorrow", func(t *testing.T, f *fixture, o *LintOptions) {
		f.trusts(mint(t, "old", nil, nil, nil), mint(t, "new", nil, nil, func(c *x509.Certificate) { c.NotBefore = inDays(1) }))
	}, []string{"not_yet_valid"}},
	{"a self-signed leaf", func(t *testing.T, f *fixture, o *LintOptions) {
		f.serves("server", mint(t, "server", nil, nil, leaf(nil)))
	}, []string{"self_signed_leaf"}},
	{"the root is sent", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "root", nil, nil, nil)
		ca := mint(t, "issuing", root, nil, nil)
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)), ca, root)
	}, []string{"chain_root_included"}},
	{"the intermediate lies among the client CAs only", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "root", nil, nil, nil)
		ca := mint(t, "issuing", root, nil, nil)
		f.serves("server", mint(t, "server", ca, nil, leaf(nil)))
		f.trusts(root, ca)
	}, []string{"chain_incomplete"}},
	{"a lone leaf says where its issuer is", func(t *testing.T, f *fixture, o *LintOptions) {
		f.serves("server", mint(t, "server", mint(t, "issuing", mint(t, "root", nil, nil, nil), nil, nil), nil,
			leaf(func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://ca.example/ca.crt"} })))
	}, []string{"chain_incomplete"}},
	{"a lone leaf of an unknown issuer", func(t *testing.T, f *fixture, o *LintOptions) {
		f.serves("server", mint(t, "server", mint(t, "other", nil, nil, nil), nil, leaf(nil)))
	}, []string{"chain_not_verified"}},
	{"a lone leaf of an intermediate below a client CA, for a host", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "root", nil, nil, nil)
		f.serves("server", mint(t, "server", mint(t, "issuing", root, nil, nil), nil, leaf(nil)))
		f.trusts(root)
		o.Hosts = []string{"localhost"}
	}, []string{"chain_not_verified"}},
	{"the CA may not sign for this name", func(t *testing.T, f *fixture, o *LintOptions) {
		root := mint(t, "root", nil, nil, func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"corp.example"}, true
		})
		f.serves("server", mint(t, "server", root, nil, leaf(nil)))
		f.trusts(root)
	}, []string{"chain_invalid"}},
	{"a common name only", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{CN: "cache.example", Server: true}))
		o.Hosts = []string{"cache.example"}
	}, []string{"san_missing", "host_not_covered"}},
	{"other names", func(t *testing.T, f *fixture, o *LintOptions) {
		o.Hosts = []string{"localhost", "cache.example", "127.0.0.1"}
	}, []string{"host_not_covered", "host_not_covered"}},
	{"a wildcard has one label", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"*.cache.example"}, Server: true}))
		o.Hosts = []string{"a.b.cache.example"}
	}, []string{"host_not_covered"}},
	{"an address of the second pair", func(t *testing.T, f *fixture, o *LintOptions) {
		f.writePair("second", f.issue(f.ca, pki.Leaf{IPs: []net.IP{net.IPv4(10, 0, 0, 1)}, Server: true}))
		f.secondPair("second")
		o.Hosts = []string{"10.0.0.1"}
	}, []string{"host_not_default"}},
}

func TestLint(t *testing.T) {
	for _, c := range lintCases {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			o := LintOptions{Roots: x509.NewCertPool()} // not those of the machine
			o.Roots.AppendCertsFromPEM(f.ca.PEM())
			c.setup(t, f, &o)
			wantIDs(t, Lint(f.open().Snapshot(), o), c.want...)
		})
	}
}

func TestLintClientAndPeer(t *testing.T) {
	f := newFixture(t)
	open := func() []Finding {
		t.Helper()
		c, err := OpenClient(ClientOptions{CAFile: f.path("ca.crt"), CertFile: f.path("client.crt"), KeyFile: f.path("client.key")})
		f.must(err)
		return LintClient(c, LintOptions{})
	}
	f.writePair("client", f.issue(f.ca, pki.Leaf{CN: "proxy", Client: true}))
	wantIDs(t, open())
	f.writePair("client", f.issue(f.ca, pki.Leaf{CN: "proxy", Client: true, Key: rsaKey(t, 1024), NotBefore: inDays(-61), NotAfter: inDays(29)}))
	f.trusts(mint(t, "weak", nil, curveKey(t, elliptic.P224()), nil))
	wantIDs(t, open(), "weak_key", "weak_key", "expires_soon")

	weak := mint(t, "backend", mint(t, "other", nil, nil, nil), nil, leaf(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }))
	found := LintPeer("db:6379", []*x509.Certificate{weak.cert}, LintOptions{})
	wantIDs(t, found, "weak_signature")
	if found[0].Subject != "db:6379" {
		t.Errorf("got %+v", found)
	}
}

func TestALeafThatBeginsSoonPointsToTheClock(t *testing.T) {
	f := newFixture(t)
	for begin, want := range map[time.Duration]string{3 * time.Minute: "clock of this machine is behind", 48 * time.Hour: "wait until then"} {
		f.writePair("server", f.issue(f.ca, pki.Leaf{DNS: []string{"localhost"}, Server: true, NotBefore: time.Now().Add(begin), NotAfter: inDays(90)}))
		_, err := Open(f.opts)
		fault, ok := errors.AsType[*Fault](err)
		if !ok || fault.Reason != ReasonNotYetValid || !strings.Contains(fault.Cure, want) {
			t.Errorf("%v: got %v, want %q", begin, err, want)
		}
	}
}
