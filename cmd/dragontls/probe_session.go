package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"dragontls/certs/pki"
)

// modern are the versions whose sessions are looked at: those below are findings in themselves.
var modern = []uint16{tls.VersionTLS12, tls.VersionTLS13}

var probePing = respCommand("PING")

// checkClientCertificate comes without a certificate, then with one that nobody trusts.
func (p *prober) checkClientCertificate() {
	foreign, err := throwAway()
	for _, version := range modern {
		if !p.offered[version] {
			continue
		}
		name := tls.VersionName(version)
		none := p.try(probeAttempt{version: version, commands: []string{probePing}})
		p.judgeNone("client certificate, "+name, none)
		if !none.requested {
			continue
		}
		check := "unknown CA, " + name
		if err != nil {
			p.report.fail(check, err.Error(), "try again")
			continue
		}
		p.judgeForeign(check, p.try(probeAttempt{version: version, certificate: &foreign, commands: []string{probePing}}))
	}
}

func (p *prober) judgeNone(check string, r probeResult) {
	const cure = "let the endpoint demand one: DRAGONTLS_TLS_CLIENT_AUTH=require of dragontls"
	switch {
	case len(r.replies) > 0 && r.requested:
		p.report.fail(check, "requested, not required: without one the answer is "+quoted(r.replies[0]), cure)
	case len(r.replies) > 0:
		p.report.fail(check, "not requested: without one the answer is "+quoted(r.replies[0]), cure)
	case !r.requested:
		p.report.fail(check, "not requested, and no answer: "+p.describe(r.err), cure)
	case isRefusal(r.err):
		p.report.ok(check, "required; without one: "+p.describe(r.err))
	default:
		p.report.fail(check, "requested; whether it is required is unknown: "+p.describe(r.err), "look for this connection in the log of the endpoint")
	}
}

func (p *prober) judgeForeign(check string, r probeResult) {
	switch {
	case len(r.replies) > 0:
		p.report.fail(check, "a client certificate that nobody trusts is accepted: the answer is "+quoted(r.replies[0]),
			"let the endpoint verify clients against a bundle of CAs: DRAGONTLS_TLS_CLIENT_CA_FILE of dragontls")
	case isRefusal(r.err):
		p.report.ok(check, "a client certificate that nobody trusts is refused: "+p.describe(r.err))
	default:
		p.report.fail(check, "whether a client certificate that nobody trusts is refused is unknown: "+p.describe(r.err), "look for this connection in the log of the endpoint")
	}
}

// throwAway is a client certificate of a CA that nobody has ever heard of.
func throwAway() (tls.Certificate, error) {
	ca, err := pki.NewCA("dragontls probe, not to be trusted")
	if err != nil {
		return tls.Certificate{}, err
	}
	certPEM, keyPEM, err := ca.Issue(pki.Leaf{CN: "dragontls probe", Client: true})
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// checkResumption connects twice with the same cache of sessions. No resumption costs time, not security.
func (p *prober) checkResumption(leaf *x509.Certificate) {
	for _, version := range modern {
		if !p.offered[version] {
			continue
		}
		check := "resumption, " + tls.VersionName(version)
		if time.Now().After(leaf.NotAfter) { // crypto/tls offers no session of such a one
			p.report.info(check, "not tried: the certificate has expired")
			continue
		}
		a := probeAttempt{version: version, certificate: p.certificate, commands: []string{probePing}, sessions: tls.NewLRUClientSessionCache(1)}
		first := p.try(a)
		if len(first.replies) == 0 {
			p.report.info(check, "not tried: "+p.describe(first.err))
			continue
		}
		switch second := p.try(a); {
		case second.state.DidResume && len(second.replies) > 0:
			p.report.ok(check, "a second connection resumes the session of the first")
		case second.state.DidResume:
			p.report.fail(check, "a resumed session gets no answer: "+p.describe(second.err), "look for this connection in the log of the endpoint")
		default:
			p.report.info(check, "none: each connection costs a full handshake")
		}
	}
}

// checkAuth repeats the first connection with a password in front of the PING and returns what came of it. Nothing
// was verified while connecting, so the password only goes to the holder of a certificate that was found good.
func (p *prober) checkAuth(first probeResult, trusted bool) probeResult {
	const check = "AUTH"
	if !trusted {
		p.report.info(check, "not tried: the password is not sent to an endpoint whose certificate is not good")
		return first
	}
	auth := respCommand("AUTH", p.password)
	if p.username != "" {
		auth = respCommand("AUTH", p.username, p.password)
	}
	r := p.try(probeAttempt{version: first.state.Version, certificate: p.certificate, leaf: first.state.PeerCertificates[0],
		commands: []string{auth, probePing}})
	if len(r.replies) == 0 {
		p.report.fail(check, "no answer: "+p.describe(r.err), "look for this connection in the log of the endpoint")
		return r
	}
	// The first word only: an unknown command is answered with its arguments, the password among them.
	word, _, _ := strings.Cut(r.replies[0], " ")
	if r.replies = r.replies[1:]; word == "+OK" {
		p.report.ok(check, word)
	} else {
		p.report.fail(check, "refused: "+quoted(word), "check --username and --password-file; a dragontls with a backend password "+
			"takes only the user and password that it uses for this certificate itself, and with CLIENT_PASSWORD=refuse none")
	}
	return r
}

// checkPing judges the connection with the certificate that was given.
func (p *prober) checkPing(r probeResult) {
	const check = "PING"
	if len(r.replies) == 0 {
		p.noPing(r)
		return
	}
	reply := r.replies[0]
	word, _, _ := strings.Cut(reply, " ")
	switch {
	case reply == "+PONG":
		p.report.ok(check, "+PONG")
	case word == "-NOAUTH" || word == "-NOPERM":
		p.report.ok(check, "an answer, but no +PONG: "+quoted(reply))
	default:
		p.report.fail(check, "no +PONG but "+quoted(reply), "look at the backend of the endpoint")
	}
}

func (p *prober) noPing(r probeResult) {
	const check = "PING"
	refused := isRefusal(r.err) && r.requested
	switch {
	case refused && p.certificate == nil:
		p.report.info(check, "not tried: it takes a client certificate, see --cert and --key")
	case refused:
		p.refusedClient(check, r.err)
	default:
		p.report.fail(check, "no answer: "+p.describe(r.err), "is this a Redis or Dragonfly endpoint, and is its backend up?")
	}
}

// Alerts that are about the client certificate itself (RFC 8446, 6.2).
const (
	alertCertificateRevoked = 44
	alertUnknownCA          = 48
)

// refusedClient says whose fault it is, as far as that shows here, that the client certificate is refused. Most alerts do not
// tell: an endpoint whose own CRL has expired refuses every client, as if their certificates were bad (dragontls) or had
// expired (OpenSSL).
func (p *prober) refusedClient(check string, err error) {
	leaf, now := p.certificate.Leaf, time.Now()
	refused := "the client certificate of --cert is refused: " + p.describe(err)
	code := alertCode(err)
	switch {
	case now.After(leaf.NotAfter):
		p.report.fail(check, refused+"; it expired on "+leaf.NotAfter.UTC().Format(time.RFC3339), "renew the certificate")
	case now.Before(leaf.NotBefore):
		p.report.fail(check, refused+"; it is not valid before "+leaf.NotBefore.UTC().Format(time.RFC3339),
			"wait until then, or set the clock of this machine")
	case !forClients(leaf):
		p.report.fail(check, refused+"; it is not issued for clients", "have it issued with extended key usage clientAuth")
	case code == alertUnknownCA:
		p.report.fail(check, refused, "use one of a CA that the endpoint trusts, or add its CA to those of the endpoint")
	case code == alertCertificateRevoked:
		p.report.fail(check, refused, "use one that is not revoked")
	default:
		p.report.fail(check, "the endpoint refuses the certificate of --cert, which is in date and for clients: "+p.describe(err),
			"the log of the endpoint gives the reason: its own CRL is missing or has expired (no_crl, crl_expired), which is to be mended there; "+
				"or it does not trust the CA of the certificate (unknown_ca), does not admit it (not_allowed, unmapped) or finds it revoked (certificate_revoked)")
	}
}

func forClients(leaf *x509.Certificate) bool {
	return len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// quoted shows a reply, which is one line of at most maxProbeReply bytes.
func quoted(reply string) string {
	if len(reply) > 120 {
		reply = reply[:120] + "..."
	}
	return fmt.Sprintf("%q", reply)
}
