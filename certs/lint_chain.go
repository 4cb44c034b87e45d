package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// serverLeaf holds the rules for what clients look at first.
func (l *linter) serverLeaf(file string, leaf *x509.Certificate) {
	if lasts := leaf.NotAfter.Sub(leaf.NotBefore); lasts > maxServerValidity {
		l.add(SeverityWarning, "long_validity", file, fmt.Sprintf("the leaf is valid for %s: some clients refuse more than 398", duration(lasts)),
			"have it issued for 398 days or less, and renewed by a program")
	}
	// A URI alone is how SPIFFE names a server.
	if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) == 0 {
		l.add(SeverityError, "san_missing", file, "the leaf has no subject alternative name: clients ignore the common name",
			"have it issued with the DNS names and addresses that clients use")
	}
}

// hosts finds what clients use and no leaf bears.
func (l *linter) hosts(pairs []*pair) {
	for _, host := range l.Hosts {
		bears := func(p *pair) bool { return p.tls.Leaf.VerifyHostname(host) == nil }
		i := slices.IndexFunc(pairs, bears)
		switch {
		case i < 0:
			message := "no subject alternative name of the served certificates is this one"
			if slices.ContainsFunc(pairs, func(p *pair) bool { return strings.EqualFold(p.tls.Leaf.Subject.CommonName, host) }) {
				message += "; a common name is, but clients ignore it"
			}
			l.add(SeverityError, "host_not_covered", host, message, "have a certificate issued for it")
		// Clients name no address in SNI (RFC 6066, 3): they get the first pair.
		case i > 0 && net.ParseIP(strings.Trim(host, "[]")) != nil:
			l.add(SeverityError, "host_not_default", host,
				fmt.Sprintf("clients of an address are served the first certificate, which is not issued for it; %q is", pairs[i].file),
				"put that pair first, or have the first one issued for the address")
		}
	}
}

// chain finds certificates that are missing in a chain, or need not be there.
// Which roots clients know is not known here: those of the system and of the
// bundle for client certificates are taken for them.
func (l *linter) chain(file string, chain []*x509.Certificate, clients *bundle) {
	last := chain[len(chain)-1]
	switch {
	case len(chain) == 1 && selfSigned(last):
		l.add(SeverityWarning, "self_signed_leaf", file, "the leaf is self-signed: clients must trust this very certificate, and change it when it does",
			"have it issued by a CA")
		return
	case selfSigned(last):
		l.add(SeverityWarning, "chain_root_included", file,
			fmt.Sprintf("%s is a root: clients have it or do not trust it, and it makes each handshake larger", title(len(chain)-1, last)),
			"remove it from the file")
		return
	}
	if missing := intermediateOf(last, clients); missing != nil {
		l.add(SeverityWarning, "chain_incomplete", file,
			fmt.Sprintf("the intermediate CA %q, which is among the client CAs, is missing: clients that know only its root refuse the chain", missing.Subject.String()),
			"append its certificate to the file")
		return
	}
	err := l.verify(chain, clients)
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil, errors.As(err, &invalid) && invalid.Reason == x509.Expired: // found elsewhere
	case !errors.As(err, &unknown):
		l.add(SeverityError, "chain_invalid", file, fmt.Sprintf("clients refuse the chain: %v", err), "have it issued again by its CA")
	// Where a chain is sent with its intermediates, a root that is unknown here is the rule: that of a private CA.
	case len(chain) > 1:
	case len(last.IssuingCertificateURL) > 0:
		l.add(SeverityWarning, "chain_incomplete", file,
			fmt.Sprintf("the file holds the leaf only, its issuer %q is unknown here and can be fetched: most likely it is an intermediate CA, which clients do not have", last.Issuer.String()),
			"append the certificates between leaf and root to the file; where that issuer is a root of yours, name its file in SSL_CERT_FILE")
	default:
		l.add(SeverityWarning, "chain_not_verified", file,
			fmt.Sprintf("the file holds the leaf only, and its issuer %q is unknown here: whether clients accept it cannot be verified", last.Issuer.String()),
			"name the file of the root that clients trust in SSL_CERT_FILE; where the issuer is an intermediate CA, append its certificate to the file")
	}
}

// intermediateOf returns the issuer of cert in the bundle where that is an
// intermediate: its own issuer is there too. Without that one it serves as a
// root, and so does one that is there both self-signed and cross-signed.
func intermediateOf(cert *x509.Certificate, clients *bundle) *x509.Certificate {
	var found *x509.Certificate
	for _, issuer := range issuersIn(cert, clients) {
		if len(issuersIn(issuer, clients)) == 0 {
			return nil
		}
		found = issuer
	}
	return found
}

// issuersIn returns the CAs of the bundle that signed cert, itself aside.
func issuersIn(cert *x509.Certificate, clients *bundle) []*x509.Certificate {
	var issuers []*x509.Certificate
	if clients != nil && !selfSigned(cert) {
		for _, ca := range clients.certs {
			if !ca.Equal(cert) && cert.CheckSignatureFrom(ca) == nil {
				issuers = append(issuers, ca)
			}
		}
	}
	return issuers
}

// verify asks the bundle first, so that most private PKIs never load the system's roots.
func (l *linter) verify(chain []*x509.Certificate, clients *bundle) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: l.Now}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	if clients != nil {
		o.Roots = clients.pool
	}
	_, err := chain[0].Verify(o)
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return err
	}
	o.Roots = l.Roots
	if o.Roots == nil {
		if o.Roots, _ = x509.SystemCertPool(); o.Roots == nil {
			o.Roots = x509.NewCertPool()
		}
	}
	_, err = chain[0].Verify(o)
	return err
}
