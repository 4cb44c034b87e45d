package certs

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxVerdicts bounds what is remembered of chains: some 250 bytes each, and maxDetail
// more where there is no chain.
const maxVerdicts = 4096

// verdict is what crypto/x509 said of one leaf with some CAs. Signatures and names
// do not change, so it holds for as long as no certificate that takes part begins
// or ends.
type verdict struct {
	since, until time.Time
	// paths are the chains, without the leaf. A CA that is not below 0 is one of
	// client.inChains; otherwise it is the certificate -1-i of the bundle.
	paths [][]int
	err   error // see remembered
}

// maxDetail bounds the text of a remembered error, in bytes: it may quote names of
// the client's certificates.
const maxDetail = 256

// remembered returns err as one of the errors of this package with a text. It holds
// no certificate, as errors of crypto/x509 do.
func remembered(err error) error {
	for _, kind := range []error{ErrClientExpired, ErrClientEarly, ErrClientUntrusted, ErrClientInvalid} {
		if detail, ok := strings.CutPrefix(err.Error(), kind.Error()); ok && errors.Is(err, kind) {
			return fmt.Errorf("%w%s", kind, strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], ""))
		}
	}
	return err
}

func (v *verdict) covers(now time.Time) bool { return !now.Before(v.since) && !now.After(v.until) }

// inChains returns the known CAs that can be in a chain of the leaf by their names, in
// an order of ours: what else a client sends, and how, makes no other verdict.
func (c *client) inChains() []shown {
	found := nameable(c.leaf, nil, c.known)
	slices.SortFunc(found, func(x, y shown) int { return bytes.Compare(x.sum[:], y.sum[:]) })
	return found
}

// keyOf names the leaf and the CAs that a verdict is about.
func keyOf(leaf shown, cas []shown) [32]byte {
	h := sha256.New()
	h.Write(leaf.sum[:])
	for _, ca := range cas {
		h.Write(ca.sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// verify returns the chains of c that its known CAs allow. A fault is one of
// crypto/x509 wrapped in ErrClientExpired, ErrClientEarly, ErrClientUntrusted
// or ErrClientInvalid, or ErrChainTooComplex. live: the client has a session; that
// there is no chain is remembered too.
func (b *bundle) verify(c *client, live bool, now time.Time) ([][]*x509.Certificate, error) {
	cas := c.inChains()
	key := keyOf(c.leaf, cas)
	if v, ok := b.verdicts.get(key); ok && v.covers(now) {
		return v.chains(b, c.leaf, cas), v.err
	}
	if len(cas) > 0 && tangled(c.leaf, cas) {
		return nil, ErrChainTooComplex
	}
	chains, err := c.leaf.cert.Verify(x509.VerifyOptions{
		Roots: b.pool, Intermediates: poolOf(cas), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err == nil && fips140.Enabled() {
		chains = slices.DeleteFunc(chains, weakForFIPS)
	}
	err = faultOf(err, len(chains), now)
	if err == nil || live {
		b.verdicts.put(key, b.verdictOf(c.leaf, cas, chains, err, now))
	}
	return chains, err
}

// tangled reports whether crypto/x509 might look for an issuer more than maxSteps
// times if all signatures were good.
func tangled(leaf shown, cas []shown) bool {
	steps := 0
	var follow func(chain []*x509.Certificate)
	follow = func(chain []*x509.Certificate) {
		steps++
		last := chain[len(chain)-1]
		for _, ca := range cas {
			// crypto/x509 misses some loops, and so does repeats.
			if steps <= maxSteps && bytes.Equal(ca.cert.RawSubject, last.RawIssuer) && !repeats(ca.cert, chain) {
				follow(append(chain[:len(chain):len(chain)], ca.cert))
			}
		}
	}
	follow([]*x509.Certificate{leaf.cert})
	return steps > maxSteps
}

// repeats is what crypto/x509 takes for a loop: name, key and alternative names
// are those of a certificate in the chain.
func repeats(ca *x509.Certificate, chain []*x509.Certificate) bool {
	names, named := alternativeNames(ca)
	for _, cert := range chain {
		if !bytes.Equal(ca.RawSubject, cert.RawSubject) || !bytes.Equal(ca.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo) {
			continue
		}
		others, otherNamed := alternativeNames(cert)
		switch {
		case !named && !otherNamed:
			return true
		case !named || !otherNamed:
			return false
		case bytes.Equal(names, others):
			return true
		}
	}
	return false
}

var oidAlternativeNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// alternativeNames returns the value of that extension, and whether there is one.
func alternativeNames(cert *x509.Certificate) ([]byte, bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidAlternativeNames) {
			return e.Value, true
		}
	}
	return nil, false
}

// poolOf holds them in the order in which the client sent them: where there is no chain,
// that decides which reason crypto/x509 gives.
func poolOf(cas []shown) *x509.CertPool {
	if len(cas) == 0 {
		return nil
	}
	pool := x509.NewCertPool()
	for _, ca := range slices.SortedFunc(slices.Values(cas), func(x, y shown) int { return x.at - y.at }) {
		pool.AddCert(ca.cert)
	}
	return pool
}

// weakForFIPS: crypto/tls does not use such chains in FIPS 140-3 mode where it
// verifies clients itself.
func weakForFIPS(chain []*x509.Certificate) bool {
	return slices.ContainsFunc(chain, func(cert *x509.Certificate) bool {
		return checkKeyStrength(cert) != nil
	})
}

// faultOf sorts the errors of crypto/x509 by what a person can do about them.
func faultOf(err error, chains int, now time.Time) error {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case err == nil && chains > 0:
		return nil
	case err == nil:
		return fmt.Errorf("%w: a key in it is not allowed in FIPS 140-3 mode", ErrClientInvalid)
	case isInvalid && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return fmt.Errorf("%w: %w", ErrClientEarly, err)
	case isInvalid && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: %w", ErrClientExpired, err)
	case unknown:
		return fmt.Errorf("%w: %w", ErrClientUntrusted, err)
	}
	return fmt.Errorf("%w: %w", ErrClientInvalid, err)
}

// verdictOf keeps the outcome without any pointer to what the client sent.
func (b *bundle) verdictOf(leaf shown, cas []shown, chains [][]*x509.Certificate, err error, now time.Time) verdict {
	var v verdict
	v.since, v.until = b.period(leaf, cas, now)
	if err != nil {
		v.err = remembered(err)
	}
	for _, chain := range chains {
		var path []int
		for _, ca := range chain[1:] {
			path = append(path, b.place(cas, ca))
		}
		v.paths = append(v.paths, path)
	}
	return v
}

// place returns where a CA of a chain is found again; see verdict.paths.
func (b *bundle) place(cas []shown, ca *x509.Certificate) int {
	if i := slices.IndexFunc(cas, func(k shown) bool { return k.cert == ca }); i >= 0 {
		return i
	}
	return -1 - slices.Index(b.certs, ca)
}

func (v *verdict) chains(b *bundle, leaf shown, cas []shown) [][]*x509.Certificate {
	var chains [][]*x509.Certificate
	for _, path := range v.paths {
		chain := []*x509.Certificate{leaf.cert}
		for _, i := range path {
			if i < 0 {
				chain = append(chain, b.certs[-1-i])
			} else {
				chain = append(chain, cas[i].cert)
			}
		}
		chains = append(chains, chain)
	}
	return chains
}

// period returns the time around now in which none of the certificates that
// matter begins or ends. Both ends belong to it, as NotBefore and NotAfter belong
// to the time in which a certificate is valid.
func (b *bundle) period(leaf shown, cas []shown, now time.Time) (since, until time.Time) {
	since, until = now.AddDate(-1, 0, 0), now.AddDate(1, 0, 0)
	narrow := func(cert *x509.Certificate) {
		// Both are the first moment of a new state.
		for _, change := range []time.Time{cert.NotBefore, cert.NotAfter.Add(1)} {
			switch {
			case change.After(now) && change.Add(-1).Before(until):
				until = change.Add(-1)
			case !change.After(now) && change.After(since):
				since = change
			}
		}
	}
	narrow(leaf.cert)
	for _, ca := range cas {
		narrow(ca.cert)
	}
	for _, ca := range b.certs {
		narrow(ca)
	}
	return since, until
}
