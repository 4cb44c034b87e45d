package main

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/ocsp"
)

// mustStaple is the extension by which a certificate demands a stapled response (RFC 7633).
var mustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// checkStaple judges the OCSP response that came with the handshake (RFC 6066, 8). Without an issuer its signature
// cannot be checked.
func (p *prober) checkStaple(response []byte, leaf, issuer *x509.Certificate, now time.Time) {
	const check = "OCSP stapling"
	if len(response) == 0 {
		for _, e := range leaf.Extensions {
			if e.Id.Equal(mustStaple) {
				p.report.fail(check, "none, and the certificate demands it", "let the endpoint staple one: DRAGONTLS_TLS_OCSP of dragontls")
				return
			}
		}
		p.report.info(check, "none")
		return
	}
	r, err := ocsp.ParseResponseForCert(response, leaf, issuer)
	if err != nil {
		p.report.fail(check, fmt.Sprintf("the response is no good: %v", err), "let the endpoint fetch it again")
		return
	}
	text := fmt.Sprintf("from %s", probeStamp(r.ThisUpdate))
	if !r.NextUpdate.IsZero() {
		text += " to " + probeStamp(r.NextUpdate)
	}
	if issuer == nil {
		text += ", its signature unchecked: the CA that signed the certificate is unknown"
	}
	switch {
	case r.Status == ocsp.Revoked:
		p.report.fail(check, fmt.Sprintf("revoked at %s; %s", probeStamp(r.RevokedAt), text), "replace the certificate and its key")
	case r.Status != ocsp.Good:
		p.report.fail(check, "the CA does not know this certificate; "+text, "ask the CA, or replace the certificate")
	case !r.NextUpdate.IsZero() && now.After(r.NextUpdate):
		p.report.fail(check, "good, but out of date; "+text, "let the endpoint fetch it again")
	case now.Before(r.ThisUpdate):
		p.report.fail(check, "good, but only in future; "+text, "check the clocks of this machine and of the CA")
	case issuer == nil:
		p.report.info(check, "good; "+text)
	default:
		p.report.ok(check, "good; "+text)
	}
}
