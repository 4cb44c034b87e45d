package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"dragontls/certs/pki"
)

func newCA(t testing.TB, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name)
	must(t, err)
	return ca
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// verified issues a client certificate and returns the chain that crypto/x509
// builds from it to the root, as a handshake does.
func verified(t testing.TB, root, issuer *pki.CA, leaf pki.Leaf) []*x509.Certificate {
	t.Helper()
	leaf.Client = true
	certPEM, keyPEM, err := issuer.Issue(leaf)
	must(t, err)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	must(t, err)
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	opts.Roots.AppendCertsFromPEM(root.PEM())
	opts.Intermediates.AppendCertsFromPEM(certPEM)
	chains, err := pair.Leaf.Verify(opts)
	must(t, err)
	if len(chains) != 1 {
		t.Fatalf("%d chains, want 1", len(chains))
	}
	return chains[0]
}

func certOf(t testing.TB, ca *pki.CA) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(ca.PEM())
	cert, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return cert
}

func base64Sum(sum [32]byte) string { return base64.StdEncoding.EncodeToString(sum[:]) }

// holder is what a test puts into a certificate, byte for byte: pki and
// crypto/x509 would clean some of it.
type holder struct {
	cn, ou          []string
	dns, uri, email []string
	serial          *big.Int // nil: 1
}

// chain is a leaf for h and its root.
func (f *forge) chain(h holder) []*x509.Certificate {
	f.t.Helper()
	leaf := f.leaf(h)
	return []*x509.Certificate{leaf, f.root}
}

func (f *forge) subject(h holder) *Subject {
	f.t.Helper()
	s := FromChain(f.chain(h))
	return &s
}

// forge signs what no sane CA would.
type forge struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	root *x509.Certificate
	// refused counts the leafs that crypto/x509 would not even parse.
	refused int
}

func newForge(t testing.TB) *forge {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	root, err := x509.ParseCertificate(der)
	must(t, err)
	return &forge{t: t, key: key, root: root}
}

func (f *forge) leaf(h holder) *x509.Certificate {
	f.t.Helper()
	if h.serial == nil {
		h.serial = big.NewInt(1)
	}
	var rdns pkix.RDNSequence
	for _, cn := range h.cn {
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: cn}})
	}
	for _, ou := range h.ou {
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: ou}})
	}
	subject, err := asn1.Marshal(rdns)
	must(f.t, err)
	template := &x509.Certificate{SerialNumber: h.serial, RawSubject: subject, NotAfter: time.Now().Add(time.Hour)}
	if sans := h.sans(f.t); sans != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: sans}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, f.root, f.key.Public(), f.key)
	if err == nil {
		cert, parseErr := x509.ParseCertificate(der)
		if parseErr == nil {
			return cert
		}
	}
	// crypto/x509 refuses it today. That is its rule, not ours: judge it all the same.
	f.refused++
	cert := &x509.Certificate{
		SerialNumber: h.serial, RawSubject: subject, RawSubjectPublicKeyInfo: f.root.RawSubjectPublicKeyInfo,
		Extensions: template.ExtraExtensions,
	}
	cert.Subject.FillFromRDNSequence(&rdns)
	return cert
}

func (h holder) sans(t testing.TB) []byte {
	var names [][]byte
	for tag, values := range map[int][]string{1: h.email, 2: h.dns, 6: h.uri} {
		for _, value := range values {
			der, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)})
			must(t, err)
			names = append(names, der)
		}
	}
	if len(names) == 0 {
		return nil
	}
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(names, nil)})
	must(t, err)
	return der
}

func testSeed(t testing.TB) uint64 {
	if v := os.Getenv("TEST_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		must(t, err)
		return n
	}
	return mathrand.Uint64() % 1e9
}

func (h holder) names() []string { return slices.Concat(h.cn, h.ou, h.dns, h.uri, h.email) }
