package main

import (
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"

	"dragontls/certs/pki"
	"dragontls/config"
)

// revokePKI revokes by name or by serial, or signs the CRL again. It is not an error if the certificate is already revoked.
func revokePKI(f pkiFlags, positional []string, stdout io.Writer) error {
	crl := filepath.Join(f.dir, "ca.crl")
	if f.renew {
		if err := pki.RenewCRL(f.dir); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "signed %s for another year\n", crl)
		return nil
	}
	var what string
	var err error
	if f.serial != "" {
		serial, bad := parseSerial(f.serial)
		if bad != nil {
			return bad
		}
		what, err = "serial "+serial.Text(16), pki.RevokeSerial(f.dir, serial)
	} else {
		what, err = positional[0], pki.Revoke(f.dir, positional[0])
	}
	if errors.Is(err, pki.ErrRevoked) {
		fmt.Fprintf(stdout, "%s is revoked already: %s is as it was\n"+takesEffect, what, crl, config.Prefix)
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "revoked %s: %s, good for a year\n"+takesEffect, what, crl, config.Prefix)
	return nil
}

// takesEffect returns the line that says in which setting of dragontls the CRL takes effect. It takes the prefix of the variables.
const takesEffect = "takes effect within 2 s in a dragontls whose %sTLS_CRL_FILE is this file, as it is with \"dragontls dev\" and docker compose\n"

// completeCRL makes ca.crl in dir if it is missing and the key of the CA is there.
func completeCRL(dir string) error {
	if exists(filepath.Join(dir, "ca.crl")) || !exists(filepath.Join(dir, "ca.key")) {
		return nil
	}
	return pki.RenewCRL(dir)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// parseSerial takes hexadecimal digits as `pki show` prints them, or in pairs with colons as OpenSSL does.
func parseSerial(s string) (*big.Int, error) {
	digits := strings.ReplaceAll(s, ":", "")
	serial, ok := new(big.Int).SetString(digits, 16)
	if !ok || strings.ContainsAny(digits, "+-_") {
		return nil, fmt.Errorf("--serial %q: want hexadecimal digits", s)
	}
	return serial, nil
}
