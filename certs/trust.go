package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"dragontls/certs/identity"
)

// The reasons of a ClientError.
var (
	ErrClientExpired   = errors.New("client certificate chain is not in date")
	ErrClientUntrusted = errors.New("client certificate chain does not end in a trusted CA")
	ErrClientRevoked   = errors.New("client certificate, or a CA above it, is revoked")
	ErrNoCRL           = errors.New("there is no CRL of the issuer of the client certificate")
	ErrCRLExpired      = errors.New("the CRL of the issuer of the client certificate is not in date")
)

// ClientError refuses a client's chain, in the handshake or later.
type ClientError struct {
	Serial string // of the leaf, lower-case hex
	Err    error  // wraps one of those above, ErrNotAllowed, identity.ErrUnmapped or identity.ErrBadUser
}

func (e *ClientError) Error() string {
	if e.Serial == "" {
		return fmt.Sprintf("client without a certificate: %v", e.Err)
	}
	return fmt.Sprintf("verify client certificate %s: %v", e.Serial, e.Err)
}

func (e *ClientError) Unwrap() error { return e.Err }

// Reason is a word for metrics.
func (e *ClientError) Reason() string {
	switch {
	case errors.Is(e.Err, ErrClientExpired):
		return "certificate_expired"
	case errors.Is(e.Err, ErrClientRevoked):
		return "certificate_revoked"
	case errors.Is(e.Err, ErrNoCRL):
		return "no_crl"
	case errors.Is(e.Err, ErrCRLExpired):
		return "crl_expired"
	case errors.Is(e.Err, ErrNotAllowed):
		return "not_allowed"
	case errors.Is(e.Err, identity.ErrUnmapped):
		return "unmapped"
	case errors.Is(e.Err, identity.ErrBadUser):
		return "bad_user"
	}
	return "unknown_ca"
}

// Peer is what a snapshot knows of a client that it trusts. Without a
// certificate all fields are zero.
type Peer struct {
	// Identity stays the same when a certificate is renewed; see identity.Subject.
	Identity [32]byte
	Name     string // for people: a name of the certificate, clean and short
	Serial   string // of the leaf, lower-case hex
	// Anchor is the Fingerprint of the client CA in which the chain ends.
	Anchor string
	// NotBefore and NotAfter bound the time in which the whole chain is valid.
	NotBefore, NotAfter time.Time
	// Rule of the users file and the User of the backend that it gives; nil and
	// empty without a users file.
	Rule *identity.Rule
	User string

	rule, anchor int  // places in the users file and the bundle
	wholeLife    bool // the chain is valid for as long as the leaf
}

// better says which of two trusted chains of one client counts. Whom it acts as
// does not depend on what else is trusted, where the leaf's whole life is covered.
func (p *Peer) better(q *Peer) bool {
	switch {
	case p.rule != q.rule:
		return p.rule < q.rule
	case p.wholeLife != q.wholeLife:
		return p.wholeLife
	case !p.wholeLife && !p.NotAfter.Equal(q.NotAfter):
		return p.NotAfter.After(q.NotAfter)
	}
	return p.anchor < q.anchor
}

// Recheck judges the client of a live session, by its certificates as they came
// in the handshake. That a CRL is missing or not in date is no reason to end a
// session. The error is a *ClientError.
func (s *Snapshot) Recheck(cs *tls.ConnectionState) (Peer, error) { return s.judge(cs, true) }

// verifyConnection is where trust is decided, because it also runs on a
// resumption, which VerifyPeerCertificate does not.
func (s *Snapshot) verifyConnection(cs tls.ConnectionState) error {
	_, err := s.judge(&cs, false)
	return err
}

// judge finds the best chain that this snapshot trusts. crypto/tls has
// verified the chains' signatures in the handshake; what may have changed since
// is judged again. A CA may have been renewed or issued anew with its key, so
// where the handshake was another snapshot's, new chains are built too.
func (s *Snapshot) judge(cs *tls.ConnectionState, live bool) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return s.nobody()
	}
	now := s.opts.clock()
	leaf := cs.PeerCertificates[0]
	p, err := s.bestTrusted(cs.VerifiedChains, cs.PeerCertificates, live, now)
	if (live || cs.DidResume) && (err != nil || !p.wholeLife) {
		if chains := s.buildChains(cs.PeerCertificates, now); len(chains) > 0 {
			q, qerr := s.bestTrusted(chains, cs.PeerCertificates, live, now)
			if qerr == nil && (err != nil || q.better(&p)) {
				p, err = q, nil
			}
		}
	}
	if err != nil {
		return Peer{}, &ClientError{Serial: leaf.SerialNumber.Text(16), Err: err}
	}
	return p, nil
}

// nobody came without a certificate, which crypto/tls refuses where one is
// required. Where certificates say who may come and as whom, there is no place
// for it.
func (s *Snapshot) nobody() (Peer, error) {
	switch {
	case s.login.allow != nil:
		return Peer{}, &ClientError{Err: ErrNotAllowed}
	case s.login.users != nil:
		return Peer{}, &ClientError{Err: identity.ErrUnmapped}
	}
	return Peer{}, nil
}

// bestTrusted takes the best chain without fault, or returns the fault of one that came closest.
func (s *Snapshot) bestTrusted(chains [][]*x509.Certificate, sent []*x509.Certificate, live bool, now time.Time) (Peer, error) {
	var best Peer
	closest := ErrClientUntrusted
	for _, chain := range chains {
		p, err := s.judgeChain(chain, sent, live, now)
		switch {
		case err == nil && (closest != nil || p.better(&best)):
			best, closest = p, nil
		case err == nil || closest == nil:
		case errors.Is(closest, ErrClientUntrusted) || !errors.Is(err, ErrClientUntrusted) && !errors.Is(err, ErrClientExpired):
			closest = err
		}
	}
	return best, closest
}

func (s *Snapshot) judgeChain(chain, sent []*x509.Certificate, live bool, now time.Time) (Peer, error) {
	switch {
	case !s.links(chain, sent):
		return Peer{}, ErrClientUntrusted
	case !inDate(chain, now):
		return Peer{}, ErrClientExpired
	}
	if s.revocation != nil {
		if err := s.revocation.check(chain, live, now); err != nil {
			return Peer{}, err
		}
	}
	p, err := s.login.admit(chain)
	if err != nil {
		return Peer{}, err
	}
	anchor := sha256.Sum256(chain[len(chain)-1].Raw)
	p.Anchor = hex.EncodeToString(anchor[:])
	p.anchor = slices.IndexFunc(s.clients.certs, func(ca *x509.Certificate) bool { return ca.Equal(chain[len(chain)-1]) })
	p.NotBefore, p.NotAfter = chain[0].NotBefore, chain[0].NotAfter
	for _, cert := range chain[1:] {
		if cert.NotBefore.After(p.NotBefore) {
			p.NotBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(p.NotAfter) {
			p.NotAfter = cert.NotAfter
		}
	}
	p.wholeLife = p.NotAfter.Equal(chain[0].NotAfter)
	return p, nil
}

// links says whether a handshake of today could build the chain: it ends in the
// bundle, and whatever lies between was sent or is in the bundle too.
func (s *Snapshot) links(chain, sent []*x509.Certificate) bool {
	if s.clients == nil || !s.clients.holds(chain[len(chain)-1]) {
		return false
	}
	for _, cert := range chain[:len(chain)-1] {
		if !contains(sent, cert) && !s.clients.holds(cert) {
			return false
		}
	}
	return true
}

func contains(certs []*x509.Certificate, cert *x509.Certificate) bool {
	for _, c := range certs {
		if c.Equal(cert) {
			return true
		}
	}
	return false
}

// maxSent bounds what is tried of the certificates that a client has sent: chains
// are short, and each more costs a signature check for every session of it.
const maxSent = 8

// buildChains verifies as crypto/tls does for a server.
func (s *Snapshot) buildChains(sent []*x509.Certificate, now time.Time) [][]*x509.Certificate {
	if s.clients == nil {
		return nil
	}
	o := x509.VerifyOptions{
		Roots: s.clients.pool, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, cert := range sent[1:min(len(sent), 1+maxSent)] {
		o.Intermediates.AddCert(cert)
	}
	chains, err := sent[0].Verify(o)
	if err != nil {
		return nil
	}
	return chains
}

func inDate(chain []*x509.Certificate, now time.Time) bool {
	for _, cert := range chain {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return false
		}
	}
	return true
}
