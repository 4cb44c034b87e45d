package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"
)

// Severity of a Finding.
type Severity string

const (
	// SeverityError is a fault that lets in clients that must stay out, or keeps out clients that must get in.
	SeverityError Severity = "error"
	// SeverityWarning is what is about to, or makes it more likely.
	SeverityWarning Severity = "warning"
	// SeverityNote is what is worth knowing and needs no action.
	SeverityNote Severity = "note"
)

// Compare orders severities: the gravest first.
func (s Severity) Compare(o Severity) int {
	order := []Severity{SeverityError, SeverityWarning, SeverityNote}
	return slices.Index(order, s) - slices.Index(order, o)
}

// Finding is one thing that works and should not stay so. IDs are stable.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"` // a file, a variable or an address
	Message  string   `json:"message"`
	Cure     string   `json:"cure"`
}

// LintOptions says what certificates are held against. The zero value works.
type LintOptions struct {
	// Hosts are the names and addresses that clients use; each must be served.
	Hosts []string
	// ExpiryWarning is how long before its end a certificate or CRL is found, or
	// a third of its own validity if that is less. Zero: 720 h.
	ExpiryWarning time.Duration
	// Now is zero for the present.
	Now time.Time
	// Roots are those that clients may know; nil: the system's.
	Roots *x509.CertPool
}

// maxServerValidity is what the CA/Browser Forum and Apple's platforms allow a server certificate.
const maxServerValidity = 398 * 24 * time.Hour

// Lint says what is wrong or ageing in what s serves and trusts. It reads no
// file but that of the allow patterns and, if they are asked and were not yet, the
// system's roots.
func Lint(s *Snapshot, o LintOptions) []Finding {
	l := newLinter(o)
	for _, p := range s.pairs {
		chain := chainOf(p.tls.Certificate)
		l.chainCertificates(p.file, chain)
		l.serverLeaf(p.file, chain[0])
		l.keyUsage(p.file, chain[0])
		l.chain(p.file, chain, s.clients)
	}
	l.hosts(s.pairs)
	if s.clients != nil {
		l.bundle(s.opts.ClientCAFile, s.clients.certs, clientsRefused)
		l.crls(s)
		l.digests(s)
	}
	return l.found
}

// LintClient is Lint for what c shows to the backend and trusts of it.
func LintClient(c *Client, o LintOptions) []Finding {
	l := newLinter(o)
	state := c.current.Load()
	if state.ca != nil {
		l.bundle(c.opts.CAFile, state.ca.certs, "a backend whose chain goes through it is refused")
	}
	for _, pair := range state.config.Certificates {
		chain := chainOf(pair.Certificate)
		l.chainCertificates(c.opts.CertFile, chain)
		l.keyUsage(c.opts.CertFile, chain[0])
	}
	return l.found
}

// LintPeer is Lint for the chain that the server at address showed, leaf first.
func LintPeer(address string, chain []*x509.Certificate, o LintOptions) []Finding {
	l := newLinter(o)
	l.chainCertificates(address, chain)
	if len(chain) > 0 {
		l.keyUsage(address, chain[0])
	}
	return l.found
}

// linter gathers findings.
type linter struct {
	LintOptions
	found []Finding
}

func newLinter(o LintOptions) *linter {
	if o.ExpiryWarning == 0 {
		o.ExpiryWarning = defaultExpiryWarning
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	return &linter{LintOptions: o}
}

func (l *linter) add(severity Severity, id, subject, message, cure string) {
	l.found = append(l.found, Finding{ID: id, Severity: severity, Subject: subject, Message: message, Cure: cure})
}

// chainOf parses what was parsed before.
func chainOf(ders [][]byte) []*x509.Certificate {
	var chain []*x509.Certificate
	for _, der := range ders {
		if cert, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, cert)
		}
	}
	return chain
}

func (l *linter) chainCertificates(subject string, chain []*x509.Certificate) {
	for i, cert := range chain {
		l.certificate(subject, title(i, cert), cert, "have it issued again")
	}
}

func (l *linter) bundle(file string, cas []*x509.Certificate, refused string) {
	for i, cert := range cas {
		l.certificate(file, title(i, cert), cert, "replace this CA and reissue what it signed")
		l.trusted(file, title(i, cert), cert, refused)
	}
}

const clientsRefused = "every client whose chain goes through it is refused"

// trusted finds what makes a certificate of a bundle another CA than its operator thinks.
func (l *linter) trusted(file, title string, cert *x509.Certificate, refused string) {
	if cert.Version < 3 {
		l.add(SeverityWarning, "ca_version", file, fmt.Sprintf("%s is of X.509 version %d, which cannot say that it is a CA: everything that its key signs is trusted", title, cert.Version),
			"replace this CA by one with basicConstraints CA:TRUE (openssl req -x509)")
	}
	for _, id := range cert.UnhandledCriticalExtensions {
		l.add(SeverityError, "critical_extension", file, fmt.Sprintf("%s has a critical extension that cannot be processed here (%s): %s", title, extensionName(id), refused),
			"have the CA issued without it, or with name constraints on DNS names, IP and e-mail addresses and URIs only")
	}
	if cert.PublicKey == nil {
		kind := unusablePublicKey(cert.RawSubjectPublicKeyInfo)
		if kind == "" {
			kind = "a key of an unknown kind"
		}
		l.add(SeverityError, "unusable_key", file, fmt.Sprintf("%s has %s, which cannot check signatures here: %s", title, kind, refused),
			"replace this CA by one with an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key, and reissue what it signed")
	}
}

func extensionName(id asn1.ObjectIdentifier) string {
	if id.Equal(asn1.ObjectIdentifier{2, 5, 29, 30}) {
		return "name constraints of a kind such as directoryName"
	}
	return id.String()
}

// keyUsage finds a leaf whose key may not sign: TLS peers refuse it (RFC 8446, 4.4.2.2).
func (l *linter) keyUsage(subject string, leaf *x509.Certificate) {
	if !maySign(leaf) {
		l.add(SeverityError, "key_usage", subject, "the key usage of the leaf lacks digitalSignature: peers that look at it, such as those with OpenSSL, refuse it",
			"have it issued with key usage digitalSignature, or without that extension")
	}
}

// title tells certificates of one file apart.
func title(i int, cert *x509.Certificate) string {
	return fmt.Sprintf("certificate %d (%q)", i+1, cert.Subject.String())
}

// certificate holds the rules for every certificate, whatever it is for.
func (l *linter) certificate(subject, title string, cert *x509.Certificate, renew string) {
	if weak := weakKey(cert); weak != "" {
		l.add(SeverityError, "weak_key", subject, title+" has "+weak, renew+" with an RSA key of 2048 bits or ECDSA P-256")
	}
	// Nobody verifies what a root says of itself (RFC 5280, 6.1).
	if weakSignature(cert.SignatureAlgorithm) && !selfSigned(cert) {
		l.add(SeverityError, "weak_signature", subject, fmt.Sprintf("%s is signed with %v, which can be forged", title, cert.SignatureAlgorithm),
			renew+", signed with SHA-256 or better")
	}
	l.dates(subject, title, cert.NotBefore, cert.NotAfter)
}

func (l *linter) dates(subject, title string, begin, end time.Time) {
	left := end.Sub(l.Now)
	switch {
	case l.Now.Before(begin):
		l.add(SeverityWarning, "not_yet_valid", subject, fmt.Sprintf("%s is not valid before %s", title, date(begin)),
			"wait until then, or set the clock if it is wrong")
	case left < 0:
		l.add(SeverityError, "expired", subject, fmt.Sprintf("%s expired on %s", title, date(end)), "renew it; if it is not needed any more, remove it from the file")
	case left <= warnAhead(l.ExpiryWarning, begin, end):
		l.add(SeverityWarning, "expires_soon", subject, fmt.Sprintf("%s ends on %s, in %s", title, date(end), duration(left)), "renew it")
	}
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func duration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.Truncate(time.Second).String()
}

func weakKey(cert *x509.Certificate) string {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return fmt.Sprintf("an RSA key of %d bits", bits)
		}
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits < minCurveBits {
			return fmt.Sprintf("an ECDSA key of %d bits", bits)
		}
	}
	return ""
}

func weakSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// selfSigned goes by names and key identifiers: crypto/x509 refuses to verify
// the old algorithms that some roots are signed with.
func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) &&
		(len(cert.AuthorityKeyId) == 0 || len(cert.SubjectKeyId) == 0 || bytes.Equal(cert.AuthorityKeyId, cert.SubjectKeyId))
}
