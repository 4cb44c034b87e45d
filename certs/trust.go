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
	ErrClientExpired   = errors.New("client certificate chain has expired")
	ErrClientEarly     = errors.New("client certificate chain is not valid yet")
	ErrClientUntrusted = errors.New("client certificate chain does not end in a trusted CA")
	ErrClientInvalid   = errors.New("client certificate chain breaks a rule")
	ErrClientSignature = errors.New("client certificate chain has a signature of a kind that is not accepted")
	ErrClientRevoked   = errors.New("client certificate, or a CA above it, is revoked")
	ErrNoCRL           = errors.New("there is no CRL of the issuer of the client certificate")
	ErrCRLExpired      = errors.New("the CRL of the issuer of the client certificate has expired")
	ErrCRLEarly        = errors.New("the CRL of the issuer of the client certificate is not valid yet")
)

// ClientError refuses a client's chain, in the handshake or later.
type ClientError struct {
	Serial string // of the leaf, lower-case hex
	Err    error  // wraps one of those above, of limits.go, ErrNotAllowed, identity.ErrUnmapped or identity.ErrBadUser
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
	case errors.Is(e.Err, ErrClientEarly):
		return "certificate_not_yet_valid"
	case errors.Is(e.Err, ErrClientInvalid):
		return "bad_certificate"
	case errors.Is(e.Err, ErrClientSignature):
		return "signature_algorithm"
	case errors.Is(e.Err, ErrChainTooLong):
		return "chain_too_long"
	case errors.Is(e.Err, ErrChainTooBig):
		return "chain_too_big"
	case errors.Is(e.Err, ErrChainTooComplex):
		return "chain_too_complex"
	case errors.Is(e.Err, ErrKeyTooBig):
		return "key_too_big"
	case errors.Is(e.Err, ErrWeakKey):
		return "weak_key"
	case errors.Is(e.Err, ErrClientRevoked):
		return "certificate_revoked"
	case errors.Is(e.Err, ErrNoCRL):
		return "no_crl"
	case errors.Is(e.Err, ErrCRLExpired):
		return "crl_expired"
	case errors.Is(e.Err, ErrCRLEarly):
		return "crl_not_yet_valid"
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
func (s *Snapshot) Recheck(cs *tls.ConnectionState) (Peer, error) {
	p, _, err := s.judge(cs.PeerCertificates, true)
	return p, err
}

// verifyConnection is where trust is decided, because it also runs on a
// resumption, which VerifyPeerCertificate does not. crypto/tls verifies nothing
// but that the client has the leaf's key, and does so afterwards.
func (s *Snapshot) verifyConnection(cs tls.ConnectionState) error {
	if err := checkAttached(&cs); err != nil && len(cs.PeerCertificates) > 0 {
		return &ClientError{Serial: cs.PeerCertificates[0].SerialNumber.Text(16), Err: err}
	}
	_, c, err := s.judge(cs.PeerCertificates, false)
	if err == nil && c != nil {
		s.opts.shared.replace(cs.PeerCertificates, c)
	}
	return err
}

// judge finds the best chain that this snapshot trusts. The client that it
// returns is nil without a certificate.
func (s *Snapshot) judge(sent []*x509.Certificate, live bool) (Peer, *client, error) {
	if len(sent) == 0 {
		p, err := s.nobody()
		return p, nil, err
	}
	p, c, err := s.judgeSent(sent, live)
	if err != nil {
		return Peer{}, nil, &ClientError{Serial: sent[0].SerialNumber.Text(16), Err: err}
	}
	return p, c, nil
}

// judgeSent does the cheapest first: what a handshake may send at all, then
// whether the leaf is revoked, then the chains.
func (s *Snapshot) judgeSent(sent []*x509.Certificate, live bool) (Peer, *client, error) {
	if s.clients == nil {
		return Peer{}, nil, ErrClientUntrusted
	}
	if !live {
		if err := s.clients.checkSent(sent); err != nil {
			return Peer{}, nil, err
		}
	}
	now := s.opts.clock()
	c := s.clients.read(sent)
	p, err := s.judgeKnown(c, live, now)
	// More CAs can only make more chains. None helps a leaf that is revoked or not
	// in date, and a live session whose chain lasts as long as its leaf needs none.
	done := len(c.unknown) == 0 || errors.Is(err, errLeafRevoked) || !c.leaf.inDate(now) || live && err == nil && p.wholeLife
	if !done && s.clients.prove(c, live) {
		p, err = s.judgeKnown(c, live, now)
	}
	if errors.Is(err, ErrClientUntrusted) {
		err = s.clients.unknownOrUnverified(c, err)
	}
	if err != nil && c.untried != "" {
		err = fmt.Errorf("%w (%s)", err, c.untried)
	}
	return p, c, err
}

// judgeKnown judges by the CAs that are known to be signed from the bundle.
func (s *Snapshot) judgeKnown(c *client, live bool, now time.Time) (Peer, error) {
	if s.revocation != nil {
		if err := s.revocation.judgeLeaf(s.clients, c, live); err != nil {
			return Peer{}, err
		}
	}
	chains, err := s.clients.verify(c, live, now)
	if err != nil {
		return Peer{}, err
	}
	return s.bestTrusted(chains, live, now)
}

// nobody came without a certificate, which crypto/tls refuses where one is
// required. Where certificates decide which clients may connect, and as which user, there is no place
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

// bestTrusted takes the best chain without fault, or returns the fault of the
// first one. Without a chain nobody is trusted.
func (s *Snapshot) bestTrusted(chains [][]*x509.Certificate, live bool, now time.Time) (Peer, error) {
	var best Peer
	var fault error
	found := false
	for _, chain := range chains {
		p, err := s.judgeChain(chain, live, now)
		switch {
		case err == nil && (!found || p.better(&best)):
			best, found = p, true
		case err != nil && fault == nil:
			fault = err
		}
	}
	switch {
	case found:
		return best, nil
	case fault == nil:
		return Peer{}, ErrClientUntrusted
	}
	return Peer{}, fault
}

func (s *Snapshot) judgeChain(chain []*x509.Certificate, live bool, now time.Time) (Peer, error) {
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
