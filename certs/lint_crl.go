package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
)

const freshCRL = "fetch the CA's present one"

// crls says which CRL has aged, and which client CA has none. It asks as a
// handshake does, by signatures: names prove nothing.
func (l *linter) crls(s *Snapshot) {
	if s.revocation == nil {
		return
	}
	j := crlJudge{linter: l, file: s.opts.CRLFile, clients: s.clients, comesTo: "are refused"}
	if s.opts.CRLWarn {
		j.comesTo = "get in unchecked"
	}
	groups := s.revocation.groups(s.clients)
	for _, g := range groups {
		if g.ca == nil {
			j.strangers = append(j.strangers, g)
		}
	}
	for _, g := range groups {
		switch {
		case g.ca == nil:
			j.stranger(g)
		case len(g.lists) == 0:
			j.missing(g)
		case onlyAbove(g.ca, s.clients):
			j.dates(g, SeverityWarning, "which of its intermediate CAs it revokes is not known any more")
		default:
			j.dates(g, SeverityError, "its clients "+j.comesTo)
		}
	}
}

// crlJudge judges the lists of one file.
type crlJudge struct {
	*linter
	file      string
	clients   *bundle
	comesTo   string     // what becomes of clients whose CA has no list in date
	strangers []crlGroup // of no CA of the bundle
}

// missing is for a CA of the bundle that signed no list.
func (j *crlJudge) missing(g crlGroup) {
	name := g.ca.Subject.String()
	switch {
	case isPinned(g.ca):
		j.add(SeverityError, "crl_missing", j.file, fmt.Sprintf("%q is no CA and trusted for itself alone, so there can be no CRL of it: it %s", name, strings.Replace(j.comesTo, "are", "is", 1)),
			"have the client's certificate issued by a CA with a CRL, or, to do without, leave out both the certificate and "+"DRAGONTLS_TLS_CRL_FILE")
	case slices.ContainsFunc(j.strangers, func(s crlGroup) bool { return s.name == g.name }):
		j.add(SeverityError, "crl_wrong_key", j.file,
			fmt.Sprintf("the CRL of %q is not signed by the client CA of this name but with another key, and is ignored: its clients %s", name, j.comesTo),
			"fetch the CRL of the CA that is in the bundle; if the CA has a new key, put its new certificate into the bundle")
	case onlyAbove(g.ca, j.clients):
	case selfSigned(g.ca) && mayHaveIntermediates(g.ca) && slices.ContainsFunc(j.strangers, j.ofIntermediate):
		j.add(SeverityWarning, "crl_missing", j.file,
			fmt.Sprintf("no CRL of the client CA %q: clients of an intermediate CA that it revokes get in, and clients that it issued without an intermediate %s",
				name, j.comesTo),
			"append the CA's CRL to the file")
	default:
		j.add(SeverityError, "crl_missing", j.file, fmt.Sprintf("no CRL of the client CA %q: its clients %s", name, j.comesTo),
			"append the CA's CRL to the file, or remove that CA from the bundle")
	}
}

// stranger is for lists that no CA of the bundle signed. They may be those of an
// intermediate that clients send, or of a CA that was removed.
func (j *crlJudge) stranger(g crlGroup) {
	switch {
	case !j.ofIntermediate(g):
		return // of another key of a CA in the bundle: missing speaks of it where it matters
	case !slices.ContainsFunc(j.clients.certs, mayHaveIntermediates):
		j.add(SeverityWarning, "crl_unproven", j.file,
			fmt.Sprintf("no client CA signed the CRL of %q, and none may have an intermediate CA that did: it is ignored", g.lists[0].info.Issuer),
			"remove it from the file, or append its CA to the bundle")
	default:
		j.dates(g, SeverityWarning, "clients that send that CA as their intermediate "+j.comesTo)
	}
}

// ofIntermediate: a CA of the bundle would be asked by its own name.
func (j *crlJudge) ofIntermediate(g crlGroup) bool {
	return !slices.ContainsFunc(j.clients.certs, func(ca *x509.Certificate) bool { return string(ca.RawSubject) == g.name })
}

// dates is about the list that counts. One that ends soon is a warning at most.
func (j *crlJudge) dates(g crlGroup, severity Severity, consequence string) {
	current := g.current(j.Now)
	c := current.info
	title := fmt.Sprintf("the CRL of %q", c.Issuer)
	cure := freshCRL
	if g.ca == nil {
		cure += "; if that CA is not in use any more, remove its CRL from the file"
	}
	left := c.NextUpdate.Sub(j.Now)
	switch {
	case !current.begun(j.Now):
		j.add(severity, "crl_not_yet_valid", c.File, fmt.Sprintf("%s is not valid before %s: until then %s", title, date(c.ThisUpdate), consequence),
			"set the clock of this machine, or that of the CA")
	case left < 0:
		j.add(severity, "crl_expired", c.File,
			fmt.Sprintf("%s is %s old and expired on %s: %s", title, duration(j.Now.Sub(c.ThisUpdate)), date(c.NextUpdate), consequence), cure)
	case left <= warnAhead(j.ExpiryWarning, c.ThisUpdate, c.NextUpdate):
		j.add(SeverityWarning, "crl_expires_soon", c.File,
			fmt.Sprintf("%s is %s old and ends on %s, in %s", title, duration(j.Now.Sub(c.ThisUpdate)), date(c.NextUpdate), duration(left)), cure)
	}
}

// onlyAbove: a root whose intermediates are in the bundle too is taken to sign no clients.
func onlyAbove(ca *x509.Certificate, clients *bundle) bool {
	return selfSigned(ca) && slices.ContainsFunc(clients.certs, func(c *x509.Certificate) bool {
		return slices.Contains(issuersIn(c, clients), ca)
	})
}

// mayHaveIntermediates: no path length constraint of 0 (RFC 5280, 4.2.1.9).
func mayHaveIntermediates(ca *x509.Certificate) bool { return ca.MaxPathLen != 0 || !ca.MaxPathLenZero }
