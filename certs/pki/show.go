package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// Show writes a table of the certificates in dir, and of what its CRL lists.
func Show(dir string, w io.Writer) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%w\nmake a PKI with \"pki init\"", err)
	}
	var paths []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".crt" {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	if len(paths) == 0 {
		return fmt.Errorf("no certificate in %q\nmake some with \"pki init\"", dir)
	}
	crl, crlErr := shownCRL(dir)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSUBJECT\tHOSTS\tSERIAL\tNOT AFTER\tDAYS LEFT\tSTATE")
	now := time.Now()
	nameOf := map[string]string{} // by serial
	var faults []error
	for _, path := range paths {
		cert, err := readCert(path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		name, state := strings.TrimSuffix(filepath.Base(path), ".crt"), "ok"
		switch {
		case revokes(crl, cert):
			state = "revoked"
			nameOf[cert.SerialNumber.String()] = name
		case now.After(cert.NotAfter):
			state = "expired"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", name, cert.Subject, names(cert),
			cert.SerialNumber.Text(16), stamp(cert.NotAfter), daysLeft(cert.NotAfter, now), state)
	}
	faults = append(faults, t.Flush())
	if crlErr == nil {
		crlErr = showCRL(w, crl, nameOf, now)
	}
	return errors.Join(append(faults, crlErr)...)
}

// shownCRL needs the certificate of the CA only: its key may be elsewhere.
func shownCRL(dir string) (*x509.RevocationList, error) {
	ca, err := readCert(filepath.Join(dir, "ca.crt"))
	if err == nil {
		return readCRL(dir, ca)
	}
	if _, missing := os.Stat(crlPath(dir)); errors.Is(missing, os.ErrNotExist) {
		return nil, nil
	}
	return nil, fmt.Errorf("check %q: %w", crlPath(dir), err)
}

func showCRL(w io.Writer, crl *x509.RevocationList, nameOf map[string]string, now time.Time) error {
	if crl == nil {
		_, err := fmt.Fprint(w, "\nca.crl: none\n\"pki revoke NAME\" makes one, \"pki revoke --renew\" an empty one\n")
		return err
	}
	fmt.Fprintf(w, "\nca.crl: number %s, signed %s, next update %s (%d days left), revoked: %d\n", crl.Number,
		stamp(crl.ThisUpdate), stamp(crl.NextUpdate), daysLeft(crl.NextUpdate, now), len(crl.RevokedCertificateEntries))
	if now.After(crl.NextUpdate) {
		fmt.Fprintln(w, "it is out of date: sign it again with \"pki revoke --renew\"")
	}
	if len(crl.RevokedCertificateEntries) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERIAL\tREVOKED\tNAME")
	for _, e := range crl.RevokedCertificateEntries {
		name, ok := nameOf[e.SerialNumber.String()]
		if !ok {
			name = "-" // its file is gone or was replaced
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", e.SerialNumber.Text(16), stamp(e.RevocationTime), name)
	}
	return t.Flush()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// daysLeft is negative from the moment of expiry on.
func daysLeft(end, now time.Time) int {
	return int(math.Floor(end.Sub(now).Hours() / 24))
}

func names(cert *x509.Certificate) string {
	all := hostsOf(cert)
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	all = append(all, cert.EmailAddresses...)
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ",")
}

// readCert returns the first certificate of the file.
func readCert(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("read %q: no PEM certificate", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return cert, nil
}
