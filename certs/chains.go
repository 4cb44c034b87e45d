package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// crypto/x509 builds every chain that the sent certificates allow, and checks a
// signature with a key of the client's choice at each step: up to a hundred
// checks before it gives up. So it is only shown CAs of which prove has found,
// from the bundle downwards, that a trusted key signed them. A chain that ends in
// the bundle holds no others, so the chains found are the same.

const (
	// maxStrays: so many sent CA certificates may turn out not to be signed by the
	// trusted CA that they name; after that no more of them are tried. With one,
	// a refused handshake takes at most two checks with a key of the bundle's,
	// where an honest one takes one.
	maxStrays = 1
	// maxLiveStrays is the same for all sessions of one leaf, for as long as the
	// bundle stays as it is.
	maxLiveStrays = 8
	// maxFailed bounds how many of the checks that maxLiveStrays limits are remembered,
	// 64 bytes each. They are remembered for live sessions only: everybody else could
	// fill this with certificates that nobody signed.
	maxFailed = 4096
	// maxProven bounds how many CAs that clients send are remembered as proven, 32
	// bytes each. One that was forgotten costs a signature check.
	maxProven = 1024
	// maxSteps bounds how often crypto/x509 looks for the issuer of a certificate
	// in one verification. An honest chain of four takes three such steps, and two
	// cross-signed CAs take five.
	maxSteps = 8
)

// shown is a certificate that a client has sent. Of one that was not needed so
// far, only cert.Raw is kept after the handshake; see share.
type shown struct {
	cert *x509.Certificate
	sum  [32]byte // SHA-256 of the DER
	at   int      // its place in what the client sent; the leaf's is 0
}

func (c *shown) parsed() bool { return len(c.cert.RawSubject) > 0 } // an empty name has two bytes

func (c *shown) inDate(now time.Time) bool {
	return !now.Before(c.cert.NotBefore) && !now.After(c.cert.NotAfter)
}

// signs reports whether the certificates' names allow c to have signed child.
func (c *shown) signs(child *shown) bool {
	return bytes.Equal(c.cert.RawSubject, child.cert.RawIssuer)
}

// client is what one client has sent, seen by one bundle. Used by one goroutine.
type client struct {
	leaf    shown
	known   []shown // CAs that are in the bundle or were proven to be signed from there
	unknown []shown // the others
	untried string  // why some of unknown were not tried; empty: all were
}

// read sorts what a client sent, leaf first. No signature is checked.
func (b *bundle) read(sent []*x509.Certificate) *client {
	c := &client{leaf: shown{cert: sent[0], sum: sha256.Sum256(sent[0].Raw)}}
	for i, cert := range sent[1:] {
		ca := shown{cert, sha256.Sum256(cert.Raw), i + 1}
		same := func(other shown) bool { return other.sum == ca.sum }
		if same(c.leaf) || slices.ContainsFunc(c.known, same) || slices.ContainsFunc(c.unknown, same) {
			continue
		}
		if _, proven := b.proven.get(ca.sum); (proven || b.known[ca.sum]) && ca.parse() {
			c.known = append(c.known, ca)
		} else {
			c.unknown = append(c.unknown, ca)
		}
	}
	return c
}

// parse makes the certificate whole again.
func (c *shown) parse() bool {
	if c.parsed() {
		return true
	}
	cert, err := x509.ParseCertificate(c.cert.Raw)
	if err != nil {
		return false
	}
	c.cert = cert
	return true
}

// prove moves those of c.unknown to c.known that a trusted key has signed, and
// reports whether there are any. Only keys of the bundle and of known CAs check
// signatures. live: the client has a session, and its leaf's sessions together
// have maxLiveStrays.
func (b *bundle) prove(c *client, live bool) bool {
	strays, limit := maxStrays, "one of the CA certificates that it sent is not signed by the CA that it names; those after it were not tried"
	if spent, _ := b.strays.get(c.leaf.sum); live && spent >= maxLiveStrays {
		strays, limit = 0, fmt.Sprintf("sessions of this certificate have sent %d CA certificates that are not signed by the CA that they name; no more were tried", spent)
	}
	before := len(c.known)
	candidates := c.relevant()
	var aside []shown // candidates that none of the trusted CAs has signed; one that becomes known may have
	failed := make(map[signature]struct{})
	for len(candidates) > 0 {
		i, parents := b.mostLikely(c, candidates)
		if len(parents) == 0 {
			break // nobody can have signed any of them
		}
		ca := candidates[i]
		candidates = slices.Delete(candidates, i, i+1)
		parents = slices.DeleteFunc(parents, func(parent *x509.Certificate) bool { return b.cannotHaveSigned(&ca, parent, failed) })
		if len(parents) == 0 { // none of them can have signed it
			aside = append(aside, ca)
			continue
		}
		if strays <= 0 {
			c.untried = limit
			break
		}
		signed, costly := signedByAny(&ca, parents, failed)
		if signed {
			b.proven.put(ca.sum, struct{}{})
			c.known = append(c.known, ca)
			c.unknown = slices.DeleteFunc(c.unknown, func(other shown) bool { return other.sum == ca.sum })
			candidates, aside = append(candidates, aside...), nil
			continue
		}
		aside = append(aside, ca)
		if costly {
			strays--
			if live {
				b.strays.update(c.leaf.sum, func(spent int) int { return spent + 1 })
			}
		}
	}
	if live {
		for k := range failed {
			b.failed.put(k, struct{}{})
		}
	}
	return len(c.known) > before
}

// relevant returns those of c.unknown that can be in a chain of the leaf, by
// their names.
func (c *client) relevant() []shown { return nameable(c.leaf, c.known, c.unknown) }

// nameable returns those of cas that can be above the leaf or above one of known, by
// their names.
func nameable(leaf shown, known, cas []shown) []shown {
	var found []shown
	below := append([]shown{leaf}, known...)
	rest := slices.Clone(cas)
	for again := true; again; {
		again = false
		for i := 0; i < len(rest); i++ {
			ca := rest[i]
			if !ca.parse() || !slices.ContainsFunc(below, func(child shown) bool { return ca.signs(&child) }) {
				continue
			}
			found, below = append(found, ca), append(below, ca)
			rest = slices.Delete(rest, i, i+1)
			again = true
			break
		}
	}
	return found
}

// mostLikely returns the candidate whose key identifier fits a trusted CA best,
// and the CAs that may have signed it, the most likely first. No CAs: none of the
// candidates names a trusted one.
func (b *bundle) mostLikely(c *client, candidates []shown) (best int, parents []*x509.Certificate) {
	fit := misfit + 1
	for i := range candidates {
		possible := b.issuers(&candidates[i], c.known)
		if len(possible) > 0 && fitOf(candidates[i].cert, possible[0]) < fit {
			fit, best, parents = fitOf(candidates[i].cert, possible[0]), i, possible
		}
	}
	return best, parents
}

// issuers returns the trusted CAs with the name of child's issuer, one for each
// key, the most likely first.
func (b *bundle) issuers(child *shown, known []shown) []*x509.Certificate {
	var all []*x509.Certificate
	add := func(ca *x509.Certificate) {
		if !slices.ContainsFunc(all, func(other *x509.Certificate) bool { return interchangeable(ca, other) }) {
			all = append(all, ca)
		}
	}
	for _, ca := range b.named[string(child.cert.RawIssuer)] {
		add(ca)
	}
	for _, ca := range known {
		if ca.signs(child) {
			add(ca.cert)
		}
	}
	slices.SortStableFunc(all, func(x, y *x509.Certificate) int { return fitOf(child.cert, x) - fitOf(child.cert, y) })
	return all
}

// interchangeable reports whether two CAs accept the same signatures: they share
// the key and what Certificate.CheckSignatureFrom asks about its use.
func interchangeable(x, y *x509.Certificate) bool {
	return bytes.Equal(x.RawSubjectPublicKeyInfo, y.RawSubjectPublicKeyInfo) &&
		x.Version == y.Version && x.BasicConstraintsValid == y.BasicConstraintsValid && x.IsCA == y.IsCA && x.KeyUsage == y.KeyUsage
}

// How well a key identifier fits (RFC 5280, 4.2.1.1): the order in which
// crypto/x509 tries too.
const (
	fits = iota
	unclear
	misfit
)

func fitOf(child, ca *x509.Certificate) int {
	switch {
	case len(child.AuthorityKeyId) == 0 || len(ca.SubjectKeyId) == 0:
		return unclear
	case bytes.Equal(child.AuthorityKeyId, ca.SubjectKeyId):
		return fits
	}
	return misfit
}

// cannotHaveSigned reports whether it is known without a computation that parent's key
// has not signed ca: keys of its kind make no such signatures, or a check of these two
// has failed, either in this handshake (it is in failed) or for a live session.
func (b *bundle) cannotHaveSigned(ca *shown, parent *x509.Certificate, failed map[signature]struct{}) bool {
	if kind, ok := signerKind[ca.cert.SignatureAlgorithm]; ok && kind != parent.PublicKeyAlgorithm {
		return true
	}
	k := signatureOf(ca, parent)
	if _, here := failed[k]; here {
		return true
	}
	_, before := b.failed.get(k)
	return before
}

// signerKind is the kind of key that makes signatures of an algorithm. Of the others,
// CheckSignatureFrom accepts none.
var signerKind = map[x509.SignatureAlgorithm]x509.PublicKeyAlgorithm{
	x509.SHA256WithRSA: x509.RSA, x509.SHA384WithRSA: x509.RSA, x509.SHA512WithRSA: x509.RSA,
	x509.SHA256WithRSAPSS: x509.RSA, x509.SHA384WithRSAPSS: x509.RSA, x509.SHA512WithRSAPSS: x509.RSA,
	x509.ECDSAWithSHA256: x509.ECDSA, x509.ECDSAWithSHA384: x509.ECDSA, x509.ECDSAWithSHA512: x509.ECDSA,
	x509.PureEd25519: x509.Ed25519,
}

// unknownOrUnverified returns ErrClientSignature if a certificate of the client names a CA that is there and bears a signature
// that crypto/x509 does not verify: SHA-1, or RSA-PSS with parameters that it does not know. Otherwise it returns err.
func (b *bundle) unknownOrUnverified(c *client, err error) error {
	sent := append([]shown{c.leaf}, nameable(c.leaf, nil, slices.Concat(c.known, c.unknown))...)
	for _, cert := range sent {
		if _, verified := signerKind[cert.cert.SignatureAlgorithm]; verified {
			continue
		}
		if len(b.named[string(cert.cert.RawIssuer)]) == 0 && !slices.ContainsFunc(sent, func(ca shown) bool { return ca.at > 0 && ca.signs(&cert) }) {
			continue
		}
		algorithm := "an algorithm, or parameters of RSA-PSS, that are not known here"
		if weakSignature(cert.cert.SignatureAlgorithm) {
			algorithm = cert.cert.SignatureAlgorithm.String()
		}
		return fmt.Errorf("%w: certificate %d is signed with %s", ErrClientSignature, cert.at+1, algorithm)
	}
	return err
}

// signedByAny reports whether one of the parents signed ca, and whether a key was
// used in vain. Each such check is added to failed.
func signedByAny(ca *shown, parents []*x509.Certificate, failed map[signature]struct{}) (signed, costly bool) {
	for _, parent := range parents {
		err := ca.cert.CheckSignatureFrom(parent)
		if err == nil {
			return true, costly
		}
		if unusable(err) {
			continue
		}
		costly = true
		failed[signatureOf(ca, parent)] = struct{}{}
	}
	return false, costly
}

// unusable reports whether CheckSignatureFrom failed before it computed anything.
func unusable(err error) bool {
	_, constraint := errors.AsType[x509.ConstraintViolationError](err)
	_, insecure := errors.AsType[x509.InsecureAlgorithmError](err)
	return constraint || insecure || errors.Is(err, x509.ErrUnsupportedAlgorithm)
}
