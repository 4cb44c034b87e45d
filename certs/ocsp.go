package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"dragontls/certs/reload"

	"golang.org/x/crypto/ocsp"
)

// The values of Options.OCSP that name no file.
const (
	ocspOff   = "off"
	ocspFetch = "fetch"
)

var (
	errOCSPUnknown = errors.New("the responder does not know the certificate")
	errOCSPNoEnd   = errors.New("the response has no next update: nothing says how long it holds")
	errOCSPEnded   = errors.New("the response has ended: its next update is in the past")
	errOCSPEarly   = errors.New("the response is from the future: the responder's clock or ours is wrong")
	errOCSPSigner  = errors.New("the response is signed by a certificate that may not sign responses (it lacks OCSPSigning, or is not in date)")
	errOCSPOther   = errors.New("the response is for a certificate of another issuer with the same serial")
	errOCSPIssuer  = errors.New("the certificate file holds no issuer, against which a response would be checked")
)

// maxOCSPSkew is how far the clock of a responder may be ahead where it says that
// a certificate is revoked. A good response is stapled from its beginning on, as
// clients want it.
const maxOCSPSkew = 5 * time.Minute

const ocspIssuerCure = "append the chain to the certificate file"

// revokedError is a verified answer that the certificate is revoked.
type revokedError struct{ at time.Time }

func (e *revokedError) Error() string {
	return "the certificate is revoked since " + e.at.UTC().Format(time.RFC3339)
}

// staple is a verified response: the certificate is good. It is immutable.
type staple struct {
	raw   []byte
	from  time.Time
	until time.Time // its next update, or the end of the certificate where that is earlier
}

func (s *staple) inDate(now time.Time) bool { return !now.Before(s.from) && now.Before(s.until) }

// parseStaple verifies a response (RFC 6960) but for the dates of a good one. A
// revoked certificate is a *revokedError.
func parseStaple(der []byte, leaf, issuer *x509.Certificate, now time.Time) (*staple, error) {
	// Without an issuer the signature is checked only against a certificate in the
	// response. With one, that certificate would have to be signed by it, which an
	// intermediate that signs and encloses itself is not; and any certificate of the
	// issuer would do.
	r, err := ocsp.ParseResponseForCert(der, leaf, nil)
	if err != nil {
		return nil, err
	}
	switch signer := r.Certificate; {
	case signer == nil:
		err = r.CheckSignatureFrom(issuer)
	case !signer.Equal(issuer):
		err = checkDelegate(signer, issuer, now)
	}
	if err != nil {
		return nil, fmt.Errorf("check the signature: %w", err)
	}
	if !namesIssuer(r, issuer) {
		return nil, errOCSPOther
	}
	switch {
	case r.Status == ocsp.Revoked:
		return nil, judgeRevoked(r, now)
	case r.Status != ocsp.Good:
		return nil, errOCSPUnknown
	case r.NextUpdate.IsZero():
		return nil, errOCSPNoEnd
	}
	until := r.NextUpdate
	if leaf.NotAfter.Before(until) {
		until = leaf.NotAfter
	}
	return &staple{raw: der, from: r.ThisUpdate, until: until}, nil
}

// judgeRevoked: what is revoked stays so, hence an answer that has ended is
// believed, unless the certificate is on hold, which the CA may lift (RFC 5280,
// 5.3.1). One of the future is not: a clock is wrong, or it is not what it seems.
func judgeRevoked(r *ocsp.Response, now time.Time) error {
	switch {
	case r.ThisUpdate.After(now.Add(maxOCSPSkew)):
		return errOCSPEarly
	case r.RevocationReason == ocsp.CertificateHold && !r.NextUpdate.IsZero() && now.After(r.NextUpdate):
		return errOCSPEnded
	}
	return &revokedError{r.RevokedAt}
}

// checkDelegate: the issuer names who may sign responses for it (RFC 6960, 4.2.2.2).
func checkDelegate(signer, issuer *x509.Certificate, now time.Time) error {
	if err := signer.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	if !slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) || now.Before(signer.NotBefore) || now.After(signer.NotAfter) {
		return errOCSPSigner
	}
	return nil
}

// stapledCert is a certificate with its staple, made once and shared by handshakes.
type stapledCert struct {
	staple *staple
	cert   tls.Certificate
}

// serve returns the certificate with its staple where there is one in date. It
// neither allocates nor, without a staple, asks for the time.
func (p *pair) serve(clock func() time.Time) *tls.Certificate {
	if s := p.stapled.Load(); s != nil && s.staple.inDate(clock()) {
		return &s.cert
	}
	return &p.tls
}

// staple has p served with s from now on; nil: without one.
func (p *pair) staple(s *staple) {
	if s == nil {
		p.stapled.Store(nil)
		return
	}
	if last := p.stapled.Load(); last != nil && last.staple == s {
		return
	}
	next := &stapledCert{staple: s, cert: p.tls}
	next.cert.OCSPStaple = s.raw
	p.stapled.Store(next)
}

// filedResponse is what came of the response in a file: a staple or an error, or
// neither where it is for another certificate.
type filedResponse struct {
	staple *staple
	err    error
}

func (o *Options) ocspFile() string {
	if o.OCSP == ocspOff || o.OCSP == ocspFetch {
		return ""
	}
	return o.OCSP
}

// parseFiledResponse returns the response that a file holds, in DER. Only a file that is
// no response is a fault.
func parseFiledResponse(c reload.Contents, file string) ([]byte, error) {
	der, err := c.Get(file)
	if err != nil {
		return nil, err
	}
	if err := wellFormedResponse(der); err != nil {
		return nil, newFault(file, ReasonOCSP, "the file must hold one OCSP response in DER, neither PEM nor base64; "+
			"make one with: openssl ocsp -issuer CA -cert CERT -url URL -respout FILE", "parse OCSP response %q: %w", file, err)
	}
	return der, nil
}

// fileResponse gives each pair what the response of the file says of it. A response that cannot be
// stapled, because it is old or for a certificate that was just replaced, must neither keep the proxy
// from starting nor a new certificate from being served: it is logged and left out.
func (s *Snapshot) fileResponse(der []byte) {
	matched := false
	for _, p := range s.pairs {
		if p.issuer == nil {
			p.filed.err = errOCSPIssuer
			continue
		}
		p.filed.staple, p.filed.err = parseStaple(der, p.tls.Leaf, p.issuer, s.LoadedAt)
		matched = matched || answers(der, p)
	}
	for _, p := range s.pairs {
		if matched && p.issuer != nil && !answers(der, p) {
			p.filed = filedResponse{} // for another pair
		}
	}
}

// answers tells whether a response is for p's serial and issuer, by whomever it is signed.
func answers(der []byte, p *pair) bool {
	r, err := ocsp.ParseResponseForCert(der, p.tls.Leaf, nil)
	return err == nil && namesIssuer(r, p.issuer)
}

// wellFormedResponse looks at the outer form only (RFC 6960, 4.2.1).
func wellFormedResponse(der []byte) error {
	var outer struct {
		Status asn1.Enumerated
		Bytes  asn1.RawValue `asn1:"optional"`
	}
	rest, err := asn1.Unmarshal(der, &outer)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return fmt.Errorf("%d bytes follow it", len(rest))
	case outer.Status != 0:
		return ocsp.ResponseError{Status: ocsp.ResponseStatus(outer.Status)}
	}
	return nil
}
