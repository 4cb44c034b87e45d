package certs

import (
	"bytes"
	"crypto/x509"
	"runtime"
	"sync"
	"weak"
)

// sharedCerts lets all sessions of one certificate hold it once: parsed, it takes
// 3 KiB or more, and every tls.Conn keeps its own copy. An entry goes when the
// last session that holds it does. It may be used concurrently.
type sharedCerts struct{ m sync.Map } // SHA-256 -> weak.Pointer[x509.Certificate]

// of returns the certificate that all share.
func (s *sharedCerts) of(c *shown) *x509.Certificate {
	for {
		made := weak.Make(c.cert)
		found, loaded := s.m.LoadOrStore(c.sum, made)
		if !loaded {
			runtime.AddCleanup(c.cert, func(sum [32]byte) { s.m.CompareAndDelete(sum, made) }, c.sum)
			return c.cert
		}
		if cert := found.(weak.Pointer[x509.Certificate]).Value(); cert != nil {
			return cert
		}
		s.m.CompareAndDelete(c.sum, found) // its cleanup has not run yet
	}
}

// replace takes out of a connection's certificates what judging its client again
// does not need. sent is the tls.Conn's own list: tls.ConnectionState shares it,
// and TestAConnectionHoldsItsCertificatesOnce notices if that ends. crypto/tls
// reads from it the leaf's key and, for tickets, the DER of all. Of CAs that no
// chain needs today the DER is kept, since after a change of the bundle one may.
func (s *sharedCerts) replace(sent []*x509.Certificate, c *client) {
	if s == nil {
		return
	}
	for i, cert := range sent {
		switch known := c.find(cert); {
		case known != nil:
			sent[i] = s.of(known)
		case len(cert.RawSubject) > 0:
			sent[i] = &x509.Certificate{Raw: bytes.Clone(cert.Raw)}
		}
	}
}

// find returns the leaf or the known CA that cert is.
func (c *client) find(cert *x509.Certificate) *shown {
	if bytes.Equal(c.leaf.cert.Raw, cert.Raw) {
		return &c.leaf
	}
	for i := range c.known {
		if bytes.Equal(c.known[i].cert.Raw, cert.Raw) {
			return &c.known[i]
		}
	}
	return nil
}
