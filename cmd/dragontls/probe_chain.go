package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// probeCertificate is one certificate as sent.
type probeCertificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // lower-case hexadecimal
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"` // negative from the moment of expiry on
	Key       string    `json:"key"`
	Signature string    `json:"signature"`
	Names     []string  `json:"names,omitempty"`
}

func (p *prober) checkChain(state tls.ConnectionState) {
	now := time.Now()
	chain := state.PeerCertificates
	for i, cert := range chain {
		c := newProbeCertificate(cert, now)
		p.report.Chain = append(p.report.Chain, c)
		p.report.info(fmt.Sprintf("certificate %d", i+1), fmt.Sprintf("%s, issuer %s, serial %s, from %s to %s, %s, signed %s",
			c.Subject, c.Issuer, c.Serial, probeStamp(c.NotBefore), probeStamp(c.NotAfter), c.Key, c.Signature))
	}
	p.checkOrder(chain)
	p.checkKeys(chain)
	p.checkNames(chain[0])
	for i, cert := range chain {
		p.checkExpiry(i, cert, now)
	}
	p.checkStaple(state.OCSPResponse, chain[0], p.checkVerification(chain, now), now)
}

func newProbeCertificate(c *x509.Certificate, now time.Time) probeCertificate {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return probeCertificate{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, DaysLeft: daysBetween(now, c.NotAfter),
		Key: keyName(c.PublicKey), Signature: c.SignatureAlgorithm.String(), Names: names,
	}
}

func (p *prober) checkOrder(chain []*x509.Certificate) {
	for i, cert := range chain[:len(chain)-1] {
		var weak x509.InsecureAlgorithmError // a matter of checkKeys
		if err := cert.CheckSignatureFrom(chain[i+1]); err != nil && !errors.As(err, &weak) {
			p.report.fail("chain order", fmt.Sprintf("certificate %d is not signed by certificate %d", i+1, i+2),
				"send the leaf first, then the CA that signed it, and so on, and nothing else")
			return
		}
	}
	text := fmt.Sprintf("%d sent, each signed by the next", len(chain))
	if last := chain[len(chain)-1]; len(chain) == 1 {
		text = "the leaf alone"
	} else if bytes.Equal(last.RawSubject, last.RawIssuer) {
		text += "; the last is a root, which no client needs"
	}
	p.report.ok("chain order", text)
}

func (p *prober) checkKeys(chain []*x509.Certificate) {
	for i, cert := range chain {
		if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
			p.report.fail("keys", fmt.Sprintf("certificate %d: RSA of %d bits", i+1, key.N.BitLen()), "use ECDSA P-256, or RSA of 2048 bits or more")
			return
		}
		switch cert.SignatureAlgorithm {
		case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
			if !bytes.Equal(cert.RawSubject, cert.RawIssuer) { // nobody checks the signature of a root
				p.report.fail("keys", fmt.Sprintf("certificate %d: signed %s", i+1, cert.SignatureAlgorithm), "let its CA sign it with SHA-256")
				return
			}
		}
	}
	p.report.ok("keys", fmt.Sprintf("leaf: %s, signed %s", keyName(chain[0].PublicKey), chain[0].SignatureAlgorithm))
}

func (p *prober) checkNames(leaf *x509.Certificate) {
	names := strings.Join(newProbeCertificate(leaf, time.Now()).Names, ", ")
	if names == "" {
		names = "none"
	}
	if err := leaf.VerifyHostname(p.serverName); err != nil {
		p.report.fail("names", fmt.Sprintf("%q is not among those of the certificate: %s", p.serverName, names),
			"connect by one of these names, name it with --servername, or have a certificate issued that bears this one")
		return
	}
	p.report.ok("names", fmt.Sprintf("%q is among %s", p.serverName, names))
}

func (p *prober) checkExpiry(i int, cert *x509.Certificate, now time.Time) {
	check, days := "expiry", daysBetween(now, cert.NotAfter)
	if i > 0 {
		check = fmt.Sprintf("expiry of %d", i+1)
	}
	// As DRAGONTLS_EXPIRY_WARNING has it: 30 days, or a third of its own validity if that is less.
	early := min(30*24*time.Hour, cert.NotAfter.Sub(cert.NotBefore)/3)
	switch {
	case now.After(cert.NotAfter):
		p.report.fail(check, "it expired on "+probeStamp(cert.NotAfter), "replace it; dragontls takes up new files without a restart")
	case now.Before(cert.NotBefore):
		p.report.fail(check, "it is not valid before "+probeStamp(cert.NotBefore), "check the clocks of this machine and of the CA")
	case cert.NotAfter.Sub(now) < early:
		p.report.info(check, fmt.Sprintf("%d days left, until %s: renew it soon", days, probeStamp(cert.NotAfter)))
	default:
		p.report.ok(check, fmt.Sprintf("%d days left, until %s", days, probeStamp(cert.NotAfter)))
	}
}

// checkVerification verifies what was sent and returns the issuer of the leaf, or nil if it is unknown. Names and
// the dates of the leaf are checks of their own.
func (p *prober) checkVerification(chain []*x509.Certificate, now time.Time) (issuer *x509.Certificate) {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	leaf := chain[0]
	dated := *leaf // but in date
	if now.Before(dated.NotBefore) {
		dated.NotBefore = now
	}
	if now.After(dated.NotAfter) {
		dated.NotAfter = now
	}
	verified, err := dated.Verify(x509.VerifyOptions{Roots: p.ca, Intermediates: between, CurrentTime: now})
	if err == nil {
		p.report.ok("verification", "it comes from "+p.caName)
		if len(verified[0]) > 1 {
			return verified[0][1]
		}
		return leaf
	}
	cure := "have it issued as a certificate of a server by one of these CAs"
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		last := chain[len(chain)-1]
		cure = fmt.Sprintf("name the CA that signed it with --ca, or let the endpoint send what is missing: the certificate of %s", last.Issuer)
		if bytes.Equal(last.RawSubject, last.RawIssuer) {
			cure = "name the CA that signed it with --ca"
		}
	}
	p.report.fail("verification", fmt.Sprintf("by %s: %v", p.caName, err), cure)
	if len(chain) > 1 && leaf.CheckSignatureFrom(chain[1]) == nil {
		return chain[1]
	}
	return nil
}

func keyName(key any) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", key)
}

func probeStamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// daysBetween is negative once end has passed.
func daysBetween(now, end time.Time) int { return int(math.Floor(end.Sub(now).Hours() / 24)) }
