package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
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
	Err    error  // one of those above
}

func (e *ClientError) Error() string {
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
	}
	return "unknown_ca"
}

// Peer is what a snapshot knows of a client that it trusts. Without a
// certificate all fields are zero.
type Peer struct {
	// Anchor is the Fingerprint of the client CA in which the chain ends.
	Anchor string
	// NotBefore and NotAfter bound the time in which the whole chain is valid.
	NotBefore, NotAfter time.Time
}

// Recheck judges the client of a live session, by its certificates as they came
// in the handshake. That a CRL is missing or not in date is no reason to end a
// session. The error is a *ClientError.
func (s *Snapshot) Recheck(cs *tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, nil
	}
	chain, err := s.trusted(cs, true)
	if err != nil {
		return Peer{}, err
	}
	anchor := sha256.Sum256(chain[len(chain)-1].Raw)
	c := Peer{Anchor: hex.EncodeToString(anchor[:]), NotBefore: chain[0].NotBefore, NotAfter: chain[0].NotAfter}
	for _, cert := range chain[1:] {
		if cert.NotBefore.After(c.NotBefore) {
			c.NotBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(c.NotAfter) {
			c.NotAfter = cert.NotAfter
		}
	}
	return c, nil
}

// verifyConnection is where trust is decided, because it also runs on a
// resumption, which VerifyPeerCertificate does not.
func (s *Snapshot) verifyConnection(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil // crypto/tls refuses this where a certificate is required
	}
	_, err := s.trusted(&cs, false)
	return err
}

// trusted returns a chain that this snapshot trusts. crypto/tls has verified the
// chains' signatures in the handshake; what may have changed since is judged
// again, and where no chain holds any more, new ones are built: a CA may have
// been renewed with its key.
func (s *Snapshot) trusted(cs *tls.ConnectionState, live bool) ([]*x509.Certificate, error) {
	now := s.opts.clock()
	chain, err := s.firstTrusted(cs.VerifiedChains, cs.PeerCertificates, live, now)
	if errors.Is(err, ErrClientUntrusted) || errors.Is(err, ErrClientExpired) {
		if chains := s.buildChains(cs.PeerCertificates, now); len(chains) > 0 {
			chain, err = s.firstTrusted(chains, cs.PeerCertificates, live, now)
		}
	}
	if err != nil {
		return nil, &ClientError{Serial: cs.PeerCertificates[0].SerialNumber.Text(16), Err: err}
	}
	return chain, nil
}

// firstTrusted returns the first chain without fault, or the fault of the one that came closest.
func (s *Snapshot) firstTrusted(chains [][]*x509.Certificate, sent []*x509.Certificate, live bool, now time.Time) ([]*x509.Certificate, error) {
	err := ErrClientUntrusted
	for _, chain := range chains {
		if !s.links(chain, sent) {
			continue
		}
		if !inDate(chain, now) {
			if errors.Is(err, ErrClientUntrusted) {
				err = ErrClientExpired
			}
			continue
		}
		if s.revocation == nil {
			return chain, nil
		}
		if err = s.revocation.check(chain, live, now); err == nil {
			return chain, nil
		}
	}
	return nil, err
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

// buildChains verifies as crypto/tls does for a server.
func (s *Snapshot) buildChains(sent []*x509.Certificate, now time.Time) [][]*x509.Certificate {
	if s.clients == nil {
		return nil
	}
	o := x509.VerifyOptions{
		Roots: s.clients.pool, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, cert := range sent[1:] {
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
