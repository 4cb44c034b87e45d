package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// maxSigned bounds how many leaves that a list names are remembered with a CA that
// signed them or did not, 65 bytes each.
const maxSigned = 4096

// errLeafRevoked: no chain can change that.
var errLeafRevoked = fmt.Errorf("%w: a CRL of its issuer names it", ErrClientRevoked)

// signature is a certificate and the key that its signature was checked with, by
// SHA-256.
type signature struct{ cert, key [32]byte }

func signatureOf(cert *shown, ca *x509.Certificate) signature {
	return signature{cert.sum, sha256.Sum256(ca.RawSubjectPublicKeyInfo)}
}

// judgeLeaf judges a client's leaf before any chain of it is built. A list that
// names the serial counts where one CA has signed the list and the leaf: other
// CAs use the same serials, and some the same name. Where a list names the serial
// and none of the known CAs has signed the leaf, there is no chain either.
func (r *revocation) judgeLeaf(b *bundle, c *client, live bool) error {
	var listing []*crl
	for _, l := range r.lists[string(c.leaf.cert.RawIssuer)] {
		if l.lists(c.leaf.cert) {
			listing = append(listing, l)
		}
	}
	if len(listing) == 0 {
		return nil
	}
	signed := b.known[c.leaf.sum]
	for _, ca := range b.issuers(&c.leaf, c.known) {
		if !b.signedBy(&c.leaf, ca, live) {
			continue
		}
		signed = true
		for _, l := range listing {
			if l.signedBy(ca) {
				return errLeafRevoked
			}
		}
	}
	if !signed {
		return ErrClientUntrusted
	}
	return nil
}

// signedBy checks a leaf's signature with the key of a trusted CA, and remembers
// that it is good. For a live session it remembers as well that it is not.
func (b *bundle) signedBy(leaf *shown, ca *x509.Certificate, live bool) bool {
	k := signatureOf(leaf, ca)
	if signed, known := b.signed.get(k); known {
		return signed
	}
	signed := leaf.cert.CheckSignatureFrom(ca) == nil
	if signed || live {
		b.signed.put(k, signed)
	}
	return signed
}
