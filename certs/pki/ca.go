// Package pki is a small certificate authority for development and tests: it
// makes what a machine needs to try mutual TLS, on disk (Init, Client, Rotate,
// Show) or in memory (CA). It is no substitute for a real one: its key lies
// unencrypted beside the certificates.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

const (
	// backdate lets a peer whose clock is a little behind accept a certificate at once.
	backdate = 10 * time.Minute

	caValidity      = 10 * 365 * 24 * time.Hour
	defaultValidity = 90 * 24 * time.Hour
	// maxValidity is what the CA/Browser Forum and Apple's platforms allow a server certificate.
	maxValidity = 398 * 24 * time.Hour
)

// CA is a certificate authority. It is immutable, so any number of goroutines
// may issue from it.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	// chain is what a peer needs beside a leaf: this CA and those above it
	// without the root. Empty for a root.
	chain []byte
}

// Leaf says what Issue is to make.
type Leaf struct {
	CN     string
	OU     []string
	DNS    []string
	IPs    []net.IP
	URIs   []string
	Emails []string

	Server, Client bool // extended key usages

	CRL []string // URLs where the CRL that covers it is to be found

	NotBefore time.Time     // zero: ten minutes ago
	NotAfter  time.Time     // zero: in 90 days
	Key       crypto.Signer // nil: a new P-256 key
	Serial    *big.Int      // nil: 128 random bits
}

// NewCA makes a root.
func NewCA(name string) (*CA, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := caTemplate(name)
	if err != nil {
		return nil, err
	}
	return signCA(template, template, key, key)
}

// Intermediate makes a CA below c. What it issues carries its certificate.
func (c *CA) Intermediate(name string) (*CA, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := caTemplate(name)
	if err != nil {
		return nil, err
	}
	sub, err := signCA(template, c.cert, key, c.key)
	if err != nil {
		return nil, err
	}
	sub.chain = append(sub.PEM(), c.chain...)
	return sub, nil
}

// PEM returns the certificate of c.
func (c *CA) PEM() []byte { return encodeCert(c.cert.Raw) }

// Signer returns the key of c, to sign what Issue does not make.
func (c *CA) Signer() crypto.Signer { return c.key }

// Issue returns a leaf, followed by the intermediates above it, and its key (PKCS #8).
func (c *CA) Issue(l Leaf) (certPEM, keyPEM []byte, err error) {
	if l.Key == nil {
		if l.Key, err = newKey(); err != nil {
			return nil, nil, err
		}
	}
	template, err := l.template()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, l.Key.Public(), c.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign %q: %w", l.CN, err)
	}
	keyPEM, err = encodeKey(l.Key)
	if err != nil {
		return nil, nil, err
	}
	return append(encodeCert(der), c.chain...), keyPEM, nil
}

func (l Leaf) template() (*x509.Certificate, error) {
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          l.Serial,
		Subject:               pkix.Name{CommonName: l.CN, OrganizationalUnit: l.OU},
		NotBefore:             l.NotBefore,
		NotAfter:              l.NotAfter,
		DNSNames:              l.DNS,
		IPAddresses:           l.IPs,
		EmailAddresses:        l.Emails,
		CRLDistributionPoints: l.CRL,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = now.Add(-backdate)
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = now.Add(defaultValidity)
	}
	if t.SerialNumber == nil {
		serial, err := newSerial()
		if err != nil {
			return nil, err
		}
		t.SerialNumber = serial
	}
	if _, ok := l.Key.(*rsa.PrivateKey); ok {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if l.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if l.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, s := range l.URIs {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("parse URI: %w", err)
		}
		t.URIs = append(t.URIs, u)
	}
	return t, nil
}

func caTemplate(name string) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil
}

func signCA(template, parent *x509.Certificate, key, parentKey crypto.Signer) (*CA, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, fmt.Errorf("sign CA %q: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key}, nil
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// newSerial returns 128 random bits, never zero (RFC 5280, 4.1.2.2).
func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	serial, err := rand.Int(rand.Reader, limit.Sub(limit, big.NewInt(1)))
	if err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
