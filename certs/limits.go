package certs

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"unsafe"
)

// What a client may send of certificates. crypto/tls has parsed them by the time
// checkSent runs, but nothing has been computed with their keys.
const (
	// maxSent is a leaf and three CAs. A public client PKI sends two or three
	// certificates, and a root need not be sent at all (RFC 8446, 4.4.2).
	maxSent = 4
	// maxSentBytes bounds the DER of all of them. Four certificates with RSA 4096
	// keys take 8 KiB. The chain also travels in the session ticket: a client may
	// send it twice in its ClientHellos and once as its certificates within the
	// 32 KiB that the proxy reads before a handshake is done.
	maxSentBytes = 9 << 10
	// maxAttached bounds the OCSP response and the certificate timestamps (SCTs) that a
	// TLS 1.3 client may attach to its certificates. crypto/tls asks for them, and keeps
	// them with the connection and in its ticket; nothing here reads them.
	maxAttached = 1 << 10
	// maxRSABits and maxCurveBits bound what one signature check costs: RSA 8192
	// and P-521 take 4 to 20 times as long as a whole handshake with P-256.
	maxRSABits, maxCurveBits = 4096, 384
	// minRSABits and minCurveBits are 112 bits of security or more (NIST SP
	// 800-131A): for a client's leaf here, and for what Lint looks at. Ed25519 has
	// the strength of P-256.
	minRSABits, minCurveBits = 2048, 256
)

// Refusals of what a client sent, before any of it was verified.
var (
	ErrChainTooLong    = errors.New("the client sent too many certificates")
	ErrChainTooBig     = errors.New("the certificates that the client sent are too large")
	ErrChainTooComplex = errors.New("the CA certificates that the client sent can be chained in too many ways")
	ErrKeyTooBig       = errors.New("a key in the client's certificates is too large")
	ErrWeakKey         = errors.New("the key of the client's certificate is too weak")
)

// checkAttached applies the limit to what a client attached to its certificates. Each
// timestamp counts with the slice that crypto/tls keeps for it.
func checkAttached(cs *tls.ConnectionState) error {
	size := len(cs.OCSPResponse)
	for _, timestamp := range cs.SignedCertificateTimestamps {
		size += int(unsafe.Sizeof(timestamp)) + len(timestamp)
	}
	if size > maxAttached {
		return fmt.Errorf("%w: %d bytes of OCSP response and timestamps with them, at most %d are accepted", ErrChainTooBig, size, maxAttached)
	}
	return nil
}

// checkSent applies the limits to what a client sent, leaf first. A CA of the
// bundle may have a key of any size: its operator chose it.
func (b *bundle) checkSent(sent []*x509.Certificate) error {
	if len(sent) > maxSent {
		return fmt.Errorf("%w: %d, at most %d are accepted", ErrChainTooLong, len(sent), maxSent)
	}
	size := 0
	for _, cert := range sent {
		size += len(cert.Raw)
	}
	if size > maxSentBytes {
		return fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrChainTooBig, size, maxSentBytes)
	}
	for i, cert := range sent {
		kind, bits := keySize(cert)
		limit := maxRSABits
		if kind == kindECDSA {
			limit = maxCurveBits
		}
		if bits > limit && !b.holds(cert) {
			return fmt.Errorf("%w: certificate %d has %s%d, at most %s%d is accepted", ErrKeyTooBig, i+1, kind, bits, kind, limit)
		}
	}
	if !maySign(sent[0]) {
		return fmt.Errorf("%w: its key usage lacks digitalSignature (RFC 8446, 4.4.2.2)", ErrClientInvalid)
	}
	return checkKeyStrength(sent[0])
}

// maySign reports whether a leaf may prove in a handshake that its key is there. Without the extension it may.
func maySign(leaf *x509.Certificate) bool {
	return leaf.KeyUsage == 0 || leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0
}

func checkKeyStrength(cert *x509.Certificate) error {
	kind, bits := keySize(cert)
	least := 0
	switch kind {
	case kindRSA:
		least = minRSABits
	case kindECDSA:
		least = minCurveBits
	}
	if bits < least {
		return fmt.Errorf("%w: %s%d, at least %s%d is needed", ErrWeakKey, kind, bits, kind, least)
	}
	return nil
}

const (
	kindRSA   = "RSA "
	kindECDSA = "ECDSA P-"
)

// keySize returns the kind and the size in bits of a certificate's key where the
// size is not fixed by the kind; otherwise the kind is empty and the size 0.
func keySize(cert *x509.Certificate) (kind string, bits int) {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return kindRSA, key.N.BitLen()
	case *ecdsa.PublicKey:
		return kindECDSA, key.Curve.Params().BitSize
	}
	return "", 0
}
