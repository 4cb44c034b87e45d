package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// crlValidity is how long a CRL of this CA is good. Nobody signs the CRL of a development CA every day, so it is a
// year and not the week that is usual; "pki revoke --renew" starts it again.
const crlValidity = 365 * 24 * time.Hour

// CRLOptions says what CRL is to sign. The zero value is an empty CRL, good from now on for a year.
type CRLOptions struct {
	Revoked    []*big.Int // serials of certificates that the CA has issued
	ThisUpdate time.Time  // zero: now; in whole seconds
	NextUpdate time.Time  // zero: a year after ThisUpdate
	Number     *big.Int   // RFC 5280, 5.2.3; nil: the seconds since 1970
	Extensions []pkix.Extension
}

// CRL returns a certificate revocation list (RFC 5280, 5) of c in PEM. Its entries are revoked at ThisUpdate.
func (c *CA) CRL(o CRLOptions) ([]byte, error) {
	if o.ThisUpdate.IsZero() {
		o.ThisUpdate = time.Now()
	}
	entries := make([]x509.RevocationListEntry, len(o.Revoked))
	for i, serial := range o.Revoked {
		entries[i] = x509.RevocationListEntry{SerialNumber: serial, RevocationTime: o.ThisUpdate}
	}
	return c.signCRL(entries, o)
}

// signCRL signs entries, which stand for o.Revoked.
func (c *CA) signCRL(entries []x509.RevocationListEntry, o CRLOptions) ([]byte, error) {
	if c.cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return nil, fmt.Errorf("CA %q may not sign CRLs: its key usage lacks it\n"+
			"make a new CA in another directory with \"pki init\" and new certificates of it", c.cert.Subject)
	}
	if o.NextUpdate.IsZero() {
		o.NextUpdate = o.ThisUpdate.Add(crlValidity)
	}
	if o.Number == nil {
		o.Number = big.NewInt(time.Now().Unix())
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		RevokedCertificateEntries: entries, ThisUpdate: o.ThisUpdate, NextUpdate: o.NextUpdate, Number: o.Number, ExtraExtensions: o.Extensions,
	}, c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign CRL of %q: %w", c.cert.Subject, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// writeCRL replaces ca.crl in dir by one with these entries and a number above that of last, the one that was
// there; nil if there was none.
func (c *CA) writeCRL(dir string, entries []x509.RevocationListEntry, last *x509.RevocationList) error {
	o := CRLOptions{ThisUpdate: time.Now(), Number: big.NewInt(time.Now().Unix())}
	if last != nil && last.Number != nil && last.Number.Cmp(o.Number) >= 0 {
		o.Number.Add(last.Number, big.NewInt(1))
	}
	data, err := c.signCRL(entries, o)
	if err != nil {
		return err
	}
	if err := replace(crlPath(dir), data, 0o644); err != nil {
		return fmt.Errorf("write %q: %w", crlPath(dir), err)
	}
	return nil
}

// readCRL returns the CRL in dir, which ca must have signed, or nil where there is none.
func readCRL(dir string, ca *x509.Certificate) (*x509.RevocationList, error) {
	path := crlPath(dir)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	const cure = "put back the one that \"pki revoke\" wrote, or remove it and revoke again what it held"
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "X509 CRL" {
		return nil, fmt.Errorf("read %q: no PEM CRL\n%s", path, cure)
	}
	crl, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w\n%s", path, err, cure)
	}
	if err := crl.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("read %q: not signed by the CA of this PKI: %w\n%s", path, err, cure)
	}
	return crl, nil
}

// revokes tells whether crl, which may be nil, lists cert. A serial names a certificate only together with its issuer.
func revokes(crl *x509.RevocationList, cert *x509.Certificate) bool {
	return crl != nil && bytes.Equal(crl.RawIssuer, cert.RawIssuer) && lists(crl, cert.SerialNumber)
}

func lists(crl *x509.RevocationList, serial *big.Int) bool {
	for _, e := range crl.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(serial) == 0 {
			return true
		}
	}
	return false
}

func crlPath(dir string) string { return filepath.Join(dir, "ca.crl") }
