package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// ErrRevoked is what Revoke and RevokeSerial return when the CRL lists the certificate already; they change nothing then.
var ErrRevoked = errors.New("revoked already")

// Revoke adds the serial of NAME.crt in dir to ca.crl, which is made if there is none and is then good for another
// year. The certificate must be one that the CA in dir has issued.
func Revoke(dir, name string) error {
	ca, err := load(dir)
	if err != nil {
		return err
	}
	if !clientName.MatchString(name) {
		return fmt.Errorf("name %q: use 1 to 64 of A-Z a-z 0-9 _ . -", name)
	}
	path := filepath.Join(dir, name+".crt")
	cert, err := readCert(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read certificate: %w\n\"pki show\" lists the names; a certificate whose file is gone "+
			"is revoked by its serial: \"pki revoke --serial HEX\"", err)
	}
	if err != nil {
		return err
	}
	if err := cert.CheckSignatureFrom(ca.cert); err != nil {
		return fmt.Errorf("%q was not issued by the CA of this PKI: %w\nonly its own CA can revoke it", path, err)
	}
	return ca.revoke(dir, cert.SerialNumber)
}

// RevokeSerial is Revoke for a certificate whose file is gone. Whether the CA ever issued that serial is unknown.
func RevokeSerial(dir string, serial *big.Int) error {
	// RFC 5280, 4.1.2.2: positive, at most 20 octets with the sign bit.
	if serial.Sign() <= 0 || serial.BitLen() > 159 {
		return fmt.Errorf("serial %s: above zero and at most 159 bits", serial.Text(16))
	}
	ca, err := load(dir)
	if err != nil {
		return err
	}
	return ca.revoke(dir, serial)
}

// RenewCRL signs ca.crl in dir again, with the same entries, for another year; it makes one if there is none.
func RenewCRL(dir string) error {
	ca, err := load(dir)
	if err != nil {
		return err
	}
	defer lock(dir)()
	last, err := readCRL(dir, ca.cert)
	if err != nil {
		return err
	}
	return ca.writeCRL(dir, entriesOf(last), last)
}

func (c *CA) revoke(dir string, serial *big.Int) error {
	if serial.Cmp(c.cert.SerialNumber) == 0 {
		return errors.New("that is the CA itself, which no CRL of its own can revoke\n" +
			"take ca.crt out of every trust store and make a new PKI in another directory with \"pki init\"")
	}
	defer lock(dir)()
	last, err := readCRL(dir, c.cert)
	if err != nil {
		return err
	}
	if last != nil && lists(last, serial) {
		return ErrRevoked
	}
	entry := x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now()}
	return c.writeCRL(dir, append(entriesOf(last), entry), last)
}

// entriesOf returns what crl lists, in the form that is signed again.
func entriesOf(crl *x509.RevocationList) []x509.RevocationListEntry {
	if crl == nil {
		return nil
	}
	var entries []x509.RevocationListEntry
	for _, e := range crl.RevokedCertificateEntries {
		entries = append(entries, x509.RevocationListEntry{
			SerialNumber: e.SerialNumber, RevocationTime: e.RevocationTime, ReasonCode: e.ReasonCode,
		})
	}
	return entries
}
