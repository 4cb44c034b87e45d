package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
)

// crls says which CRL has aged, and which client CA has none.
func (l *linter) crls(s *Snapshot) {
	if s.opts.CRLFile == "" {
		return
	}
	refused := "its clients are refused"
	if s.opts.CRLWarn {
		refused = "its clients get in unchecked"
	}
	for _, c := range s.CRLs {
		title := fmt.Sprintf("the CRL of %q", c.Issuer)
		left := c.NextUpdate.Sub(l.Now)
		switch {
		case l.Now.Before(c.ThisUpdate):
			l.add(SeverityError, "crl_not_yet_valid", c.File, fmt.Sprintf("%s is not valid before %s: until then %s", title, date(c.ThisUpdate), refused),
				"set the clock of this machine, or that of the CA")
		case left < 0:
			l.add(SeverityError, "crl_expired", c.File,
				fmt.Sprintf("%s is %s old and expired on %s: %s", title, duration(l.Now.Sub(c.ThisUpdate)), date(c.NextUpdate), refused), "fetch the CA's present one")
		case left <= warnAhead(l.ExpiryWarning, c.ThisUpdate, c.NextUpdate):
			l.add(SeverityWarning, "crl_expires_soon", c.File,
				fmt.Sprintf("%s is %s old and ends on %s, in %s", title, duration(l.Now.Sub(c.ThisUpdate)), date(c.NextUpdate), duration(left)), "fetch the CA's present one")
		}
	}
	for _, ca := range s.clients.certs {
		name := ca.Subject.String()
		listed := slices.ContainsFunc(s.CRLs, func(c CRL) bool { return c.Issuer == name })
		if !listed && !onlyAbove(ca, s.clients) {
			l.add(SeverityError, "crl_missing", s.opts.CRLFile, fmt.Sprintf("no CRL of the client CA %q: %s", name, refused),
				"append the CA's CRL to the file, or remove that CA from the bundle")
		}
	}
}

// onlyAbove: a root whose intermediates are in the bundle too is taken to sign no clients.
func onlyAbove(ca *x509.Certificate, clients *bundle) bool {
	return selfSigned(ca) && slices.ContainsFunc(clients.certs, func(c *x509.Certificate) bool {
		return slices.Contains(issuersIn(c, clients), ca)
	})
}
