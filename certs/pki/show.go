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

// Show writes a table of the certificates in dir.
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
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tSUBJECT\tNAMES\tSERIAL\tNOT AFTER\tDAYS LEFT")
	now := time.Now()
	var faults []error
	for _, path := range paths {
		cert, err := readCert(path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\n", filepath.Base(path), cert.Subject, names(cert),
			cert.SerialNumber.Text(16), cert.NotAfter.UTC().Format(time.RFC3339), daysLeft(cert, now))
	}
	return errors.Join(append(faults, t.Flush())...)
}

// daysLeft is negative from the moment of expiry on.
func daysLeft(cert *x509.Certificate, now time.Time) int {
	return int(math.Floor(cert.NotAfter.Sub(now).Hours() / 24))
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
