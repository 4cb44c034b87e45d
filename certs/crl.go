package certs

import "time"

// CRL describes one certificate revocation list in use (RFC 5280, 5).
type CRL struct {
	File       string
	Issuer     string
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    int
}
