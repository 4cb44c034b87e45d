package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// keysOfSize are made once.
var keysOfSize = sync.OnceValue(func() map[string]crypto.Signer {
	keys := make(map[string]crypto.Signer)
	for _, bits := range []int{1024, 2048, 4096, 4104} {
		keys[fmt.Sprint("RSA ", bits)], _ = rsa.GenerateKey(rand.Reader, bits)
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		keys[curve.Params().Name], _ = ecdsa.GenerateKey(curve, rand.Reader)
	}
	return keys
})

// junkCAs are named like the CA and share a key: each may have signed each, by
// its name, and their alternative names keep crypto/x509 from seeing a loop.
func junkCAs(t testing.TB, subject []byte, key crypto.Signer, n int, names ...string) [][]byte {
	t.Helper()
	var all [][]byte
	for i := range n {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano() + int64(i)), RawSubject: subject,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
			DNSNames: []string{fmt.Sprint(i, ".junk")},
		}
		for _, name := range names {
			if strings.HasPrefix(name, "/") {
				template.URIs = append(template.URIs, &url.URL{Path: name})
			} else {
				template.DNSNames = append(template.DNSNames, name)
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, der)
	}
	return all
}

// subjectOf is a CA's name, DER.
func subjectOf(t testing.TB, ca *pki.CA) []byte {
	t.Helper()
	cert, err := x509.ParseCertificate(der(ca.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	return cert.RawSubject
}

// stranger is a client whose leaf one of the junk CAs signed.
func stranger(t testing.TB, subject []byte, junk [][]byte, key crypto.Signer) tls.Certificate {
	t.Helper()
	parent := &x509.Certificate{RawSubject: subject}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, parent, leafKey.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{raw}, junk...), PrivateKey: leafKey}
}

func TestWhatAClientMaySend(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		rootSubject := subjectOf(t, f.ca)
		withKey := func(size string) tls.Certificate { return f.named(pki.Leaf{CN: "client", Key: keysOfSize()[size]}) }
		with := func(junk ...[]byte) tls.Certificate {
			c := f.client
			c.Certificate = append(c.Certificate[:1:1], junk...)
			return c
		}
		junk := func(size string, n int) [][]byte { return junkCAs(t, rootSubject, keysOfSize()[size], n) }
		s := f.open()
		for name, c := range map[string]struct {
			client tls.Certificate
			want   error
			reason string
			says   string
		}{
			"four":                {with(junk("P-384", 3)...), nil, "", ""},
			"five":                {with(junk("P-256", 4)...), ErrChainTooLong, "chain_too_long", "5, at most 4"},
			"RSA 4096 CA":         {with(junk("RSA 4096", 3)...), nil, "", ""},
			"RSA 4104 CA":         {with(junk("RSA 4104", 1)...), ErrKeyTooBig, "key_too_big", "certificate 2 has RSA 4104, at most RSA 4096"},
			"P-521 CA":            {with(junk("P-521", 1)...), ErrKeyTooBig, "key_too_big", "certificate 2 has ECDSA P-521, at most ECDSA P-384"},
			"P-521 CA in the end": {with(append(junk("P-256", 2), junk("P-521", 1)...)...), ErrKeyTooBig, "key_too_big", "certificate 4"},
			"large":               {with(junkCAs(t, rootSubject, keysOfSize()["P-256"], 1, manyNames(500)...)...), nil, "", ""},
			"too large":           {with(junkCAs(t, rootSubject, keysOfSize()["P-256"], 1, manyNames(700)...)...), ErrChainTooBig, "chain_too_big", "at most 9216 are"},
			"RSA 2048":            {withKey("RSA 2048"), nil, "", ""},
			"RSA 4096":            {withKey("RSA 4096"), nil, "", ""},
			"RSA 4104":            {withKey("RSA 4104"), ErrKeyTooBig, "key_too_big", "certificate 1 has RSA 4104"},
			"RSA 1024":            {withKey("RSA 1024"), ErrWeakKey, "weak_key", "RSA 1024, at least RSA 2048"},
			"P-384":               {withKey("P-384"), nil, "", ""},
			"P-521":               {withKey("P-521"), ErrKeyTooBig, "key_too_big", "P-521"},
			"a stranger":          {stranger(t, rootSubject, junk("P-384", 3), keysOfSize()["P-384"]), ErrClientUntrusted, "unknown_ca", "does not end in a trusted CA"},
		} {
			t.Run(name, func(t *testing.T) {
				f.t = t
				config := f.clientConfig()
				config.MinVersion, config.MaxVersion = version, version
				config.Certificates, config.GetClientCertificate = nil, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.client, nil }
				_, err := f.admitted(s, config)
				if !errors.Is(err, c.want) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				refused, ok := errors.AsType[*ClientError](err)
				if c.want != nil && (!ok || refused.Reason() != c.reason || !strings.Contains(err.Error(), c.says)) {
					t.Errorf("refused by %v, want reason %s and %q", err, c.reason, c.says)
				}
			})
		}
	})
}

// A TLS 1.3 client may attach an OCSP response and timestamps, which crypto/tls would keep with the connection.
func TestWhatAClientMayAttachToItsCertificates(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	attached := func(change func(*tls.Certificate)) *tls.Config {
		client := f.client
		change(&client)
		config := f.clientConfig()
		config.Certificates, config.GetClientCertificate = nil, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }
		return config
	}
	for name, c := range map[string]struct {
		change func(*tls.Certificate)
		want   error
	}{
		"a timestamp":     {func(c *tls.Certificate) { c.SignedCertificateTimestamps = [][]byte{make([]byte, 120)} }, nil},
		"tiny timestamps": {func(c *tls.Certificate) { c.SignedCertificateTimestamps = slices.Repeat([][]byte{{1}}, 100) }, ErrChainTooBig},
		"a response":      {func(c *tls.Certificate) { c.OCSPStaple = make([]byte, 1000) }, nil},
		"a long response": {func(c *tls.Certificate) { c.OCSPStaple = make([]byte, 1100) }, ErrChainTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			if _, err := f.admitted(s, attached(c.change)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func manyNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("name", 10000+i, ".x"))
	}
	return names
}

// The operator's own CAs may have keys of any size, sent or not.
func TestABundlesOwnCAIsExemptFromTheLimitOnKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key := keysOfSize()["P-521"]
	root := junkCAs(t, subjectOf(t, newCA(t, "large")), key, 1)
	f.write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root[0]}))
	s := f.open()
	client := stranger(t, subjectOf(t, newCA(t, "large")), nil, key)
	f.wantAdmitted(s, client)
	client.Certificate = append(client.Certificate, root[0])
	f.wantAdmitted(s, client)
}

// A key of this length makes crypto/ed25519 panic: it shows that it is never used.
var neverUsed = ed25519.PublicKey{1}

func TestAClientsOwnKeysCheckNoSignature(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	f.must(err)
	subject := subjectOf(t, f.ca)
	junk := junkCAs(t, subject, key, maxSent-1)
	s := f.open()
	for name, c := range map[string]struct {
		leaf tls.Certificate
		want error
	}{
		"a stranger":             {stranger(t, subject, nil, key), ErrClientUntrusted},
		"with a client's leaf":   {f.client, nil},
		"with a forgotten chain": {f.clientOf(newCA(t, "root")), ErrClientUntrusted},
	} {
		t.Run(name, func(t *testing.T) {
			sent := []*x509.Certificate{parsed(t, c.leaf.Certificate[0])}
			for _, raw := range junk {
				ca := parsed(t, raw)
				ca.PublicKey = neverUsed
				sent = append(sent, ca)
			}
			state := tls.ConnectionState{PeerCertificates: sent}
			if err := s.Snapshot().verifyConnection(state); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if _, err := s.Snapshot().Recheck(&state); !errors.Is(err, c.want) {
				t.Errorf("a live session: got %v, want %v", err, c.want)
			}
		})
	}
}

// A CA that the bundle's CA has certified may multiply itself.
func TestATangleOfProvenCAsIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	client := f.clientOf(sub)
	issuer := parsed(t, der(sub.PEM()))
	for i := range 2 {
		template := *issuer
		template.DNSNames = []string{fmt.Sprint("tangle", i)}
		raw, err := x509.CreateCertificate(rand.Reader, &template, issuer, issuer.PublicKey, sub.Signer())
		f.must(err)
		client.Certificate = append(client.Certificate, raw)
	}
	_, err = f.admitted(f.open(), f.as(client))
	refused, ok := errors.AsType[*ClientError](err)
	if !ok || refused.Reason() != "chain_too_complex" {
		t.Errorf("got %v", err)
	}
}
