package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"dragontls/certs/reload"
)

// RoleClientCA is the role of a CA that signs client certificates.
const RoleClientCA = "client_ca"

// Cert describes one certificate in use.
type Cert struct {
	// Role is "server", "server_chain" (what is served after a leaf),
	// "client_ca", "backend_ca", "backend_client" or "backend_client_chain".
	Role        string
	File        string
	Subject     string
	Serial      string // lower-case hex without leading zeros
	Fingerprint string // SHA-256 of the DER, lower-case hex
	NotBefore   time.Time
	NotAfter    time.Time
}

func describeCert(role, file string, c *x509.Certificate) Cert {
	sum := sha256.Sum256(c.Raw)
	return Cert{Fingerprint: hex.EncodeToString(sum[:]), Role: role, File: file, Subject: c.Subject.String(), Serial: c.SerialNumber.Text(16),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// pair is a chain with its key, proven to belong together.
type pair struct {
	file   string
	tls    tls.Certificate
	info   []Cert
	issuer *x509.Certificate // nil: the file holds the leaf only

	// stapled is what the stapler changes while the rest is served; nil: no staple.
	stapled atomic.Pointer[stapledCert]
	// filed is what the file of TLS_OCSP holds for this leaf.
	filed filedResponse
}

// again returns the pair as another snapshot serves it: staples are of one snapshot.
func (p *pair) again() *pair { return &pair{file: p.file, tls: p.tls, info: p.info, issuer: p.issuer} }

// pairFiles are the files of one pair. password is empty where the key may not be encrypted.
type pairFiles struct{ cert, key, password string }

// parsePair reads and verifies one chain and its key: order, match, dates and
// extended key usage.
func parsePair(c reload.Contents, files pairFiles, role string, usage x509.ExtKeyUsage, now time.Time) (*pair, error) {
	certFile, keyFile := files.cert, files.key
	var all faults
	chain, err := readChain(c, certFile)
	all.add(err)
	key, err := readKey(c, files)
	all.add(err)
	if len(chain) == 0 && key == nil && swapped(c, files) {
		return nil, newFault(certFile, ReasonParse, "name them the other way round", "parse %q and %q: certificate and key are swapped", certFile, keyFile)
	}
	if len(chain) > 0 {
		all.add(checkLeaf(certFile, chain, usage, now))
		if key != nil && chain[0].PublicKey != nil && !samePublicKey(chain[0].PublicKey, key.Public()) {
			all.add(newFault(certFile, ReasonMismatch, "replace both files; until then the last good pair stays",
				"match %q with key %q: the key belongs to another certificate", certFile, keyFile))
		}
	}
	if len(all) > 0 {
		return nil, all.join()
	}
	p := &pair{file: certFile, tls: tls.Certificate{PrivateKey: key, Leaf: chain[0]}}
	if len(chain) > 1 {
		p.issuer = chain[1]
	}
	for i, cert := range chain {
		p.tls.Certificate = append(p.tls.Certificate, cert.Raw)
		if i == 1 {
			role += "_chain"
		}
		p.info = append(p.info, describeCert(role, certFile, cert))
	}
	return p, nil
}

// swapped reports whether each of the two files holds what the other one should.
func swapped(c reload.Contents, files pairFiles) bool {
	cert, certErr := c.Get(files.cert)
	key, keyErr := c.Get(files.key)
	if certErr != nil || keyErr != nil {
		return false
	}
	_, err := parseKey(files.cert, cert, func() ([]byte, error) { return nil, nil })
	f, encrypted := errors.AsType[form](err)
	chain, _ := parseCerts(files.key, key)
	return len(chain) > 0 && (err == nil || encrypted && strings.HasPrefix(f.name, "encrypted"))
}

func readChain(c reload.Contents, file string) ([]*x509.Certificate, error) {
	data, err := c.Get(file)
	if err != nil {
		return nil, err
	}
	return parseCerts(file, data)
}

const certsCure = "the file must hold PEM certificates; a file that is being written is read again when it is complete"

// parseCerts is strict: where pem.Decode skips a damaged block, it refuses the
// file, since a half-written bundle would otherwise pass as a shorter one.
func parseCerts(file string, data []byte) ([]*x509.Certificate, error) {
	data = withoutBOM(data)
	begun := bytes.Count(data, begin)
	var certs []*x509.Certificate
	blocks := 0
	for rest := data; ; blocks++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, unparsable(file, len(certs)+1, block.Bytes, err)
			}
			certs = append(certs, cert)
		case "TRUSTED CERTIFICATE":
			f, _ := formOfBlock(file, block, wantCertificates)
			return nil, newFault(file, ReasonParse, f.cure, "parse %q: block %d is no certificate: %w", file, blocks+1, f)
		} // else a key in the same file, or the parameters of a curve
	}
	switch {
	case blocks != begun:
		return nil, damagedBlocks(file, data, begun-blocks, begun, certsCure)
	case len(certs) == 0:
		return nil, nothingWanted(file, data, wantCertificates, certsCure)
	}
	return certs, nil
}

func unparsable(file string, number int, der []byte, err error) *Fault {
	if kind := unusableCertificate(der); kind != "" {
		return newFault(file, ReasonParse, keyReissue, "parse %q: certificate %d has %s, which TLS cannot use here: %w", file, number, kind, err)
	}
	return newFault(file, ReasonParse, certsCure, "parse %q: certificate %d: %w", file, number, err)
}

func checkLeaf(file string, chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	var all faults
	leaf := chain[0]
	if leaf.PublicKey == nil {
		kind := unusablePublicKey(leaf.RawSubjectPublicKeyInfo)
		if kind == "" {
			kind = "a key of an unknown kind"
		}
		all.add(newFault(file, ReasonParse, keyReissue, "check %q: the certificate has %s, which TLS cannot use here", file, kind))
	}
	if f := checkDates(file, leaf, now); f != nil {
		all.add(f)
	}
	if !allows(leaf, usage) {
		want := "serverAuth"
		if usage == x509.ExtKeyUsageClientAuth {
			want = "clientAuth"
		}
		all.add(newFault(file, ReasonEKU, "have it issued with extended key usage "+want,
			"check %q: the certificate is not issued for %s", file, want))
	}
	for i, cert := range chain[:len(chain)-1] {
		if err := cert.CheckSignatureFrom(chain[i+1]); err != nil {
			all.add(newFault(file, ReasonChain, "order the file: leaf first, then each issuer",
				"check %q: certificate %d is not signed by certificate %d: %w", file, i+1, i+2, err))
		}
	}
	return all.join()
}

func checkDates(file string, cert *x509.Certificate, now time.Time) *Fault {
	switch {
	case now.After(cert.NotAfter):
		return newFault(file, ReasonExpired, "renew it, or set the clock if it is wrong",
			"check %q: certificate %s expired on %s", file, cert.SerialNumber.Text(16), cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		cure := "wait until then, or set the clock if it is wrong"
		if ahead := cert.NotBefore.Sub(now); ahead < time.Hour {
			cure = "it begins " + ahead.Truncate(time.Second).String() + " from now: most likely the clock of this machine is behind, set it"
		}
		return newFault(file, ReasonNotYetValid, cure,
			"check %q: certificate %s is not valid before %s", file, cert.SerialNumber.Text(16), cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// allows: a certificate without the extension may serve any purpose (RFC 5280, 4.2.1.12).
func allows(cert *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(cert.ExtKeyUsage, usage) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// bundle is a parsed file of CAs.
type bundle struct {
	pool  *x509.CertPool
	certs []*x509.Certificate
	// known holds the SHA-256 of each certificate: a pool cannot be asked.
	known map[[32]byte]bool
	named map[string][]*x509.Certificate // by subject, DER
	info  []Cert

	// What was found out about clients' certificates. It depends on nothing but the
	// certificates of the bundle, so it outlives reloads that leave these as they are.
	proven   *bounded[[32]byte, struct{}]  // CAs that clients sent and a trusted key signed, by SHA-256
	verdicts *bounded[[32]byte, verdict]   // by keyOf
	strays   *bounded[[32]byte, int]       // see maxLiveStrays, by the SHA-256 of the leaf
	failed   *bounded[signature, struct{}] // CAs that live clients sent, and keys that did not sign them
	signed   *bounded[signature, bool]     // leaves that a list names
}

func newBundle() *bundle {
	return &bundle{
		pool: x509.NewCertPool(), known: make(map[[32]byte]bool), named: make(map[string][]*x509.Certificate),
		proven: newBounded[[32]byte, struct{}](maxProven), verdicts: newBounded[[32]byte, verdict](maxVerdicts),
		strays: newBounded[[32]byte, int](maxVerdicts), failed: newBounded[signature, struct{}](maxFailed), signed: newBounded[signature, bool](maxSigned),
	}
}

func (b *bundle) add(cert *x509.Certificate) {
	b.pool.AddCert(cert)
	b.certs = append(b.certs, cert)
	b.known[sha256.Sum256(cert.Raw)] = true
	b.named[string(cert.RawSubject)] = append(b.named[string(cert.RawSubject)], cert)
}

func isCA(cert *x509.Certificate) bool {
	return cert.BasicConstraintsValid && cert.IsCA && (cert.KeyUsage == 0 || cert.KeyUsage&x509.KeyUsageCertSign != 0)
}

// provesItself reports whether a certificate is self-signed. Signatures of the old algorithms count here: nobody but the
// operator vouches for what a root says of itself.
func provesItself(cert *x509.Certificate) bool {
	if !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return false
	}
	err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
	return err == nil || unusable(err)
}

// isPinned reports whether a certificate of a bundle is no CA: crypto/x509 accepts it for itself, and nothing that its key
// has signed.
func isPinned(cert *x509.Certificate) bool { return cert.Version >= 3 && !isCA(cert) }

// sum is a digest of the certificates in their order.
func (b *bundle) sum() [32]byte {
	h := sha256.New()
	for _, cert := range b.certs {
		sum := sha256.Sum256(cert.Raw)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

func (b *bundle) holds(cert *x509.Certificate) bool { return b.known[sha256.Sum256(cert.Raw)] }

// parseBundle accepts a bundle in which each certificate is a CA, or is self-signed and so stands for itself alone, and at
// least one is in date. A self-signed certificate of X.509 v1 cannot say that it is a CA: it is taken for one, as OpenSSL does.
func parseBundle(c reload.Contents, file, role string, now time.Time) (*bundle, error) {
	certs, err := readChain(c, file)
	if err != nil {
		return nil, err
	}
	var all faults
	var dated *Fault
	usable := false
	b := newBundle()
	for i, cert := range certs {
		if b.holds(cert) {
			continue // twice in the file
		}
		if !isCA(cert) && (cert.IsCA || !provesItself(cert)) {
			all.add(newFault(file, ReasonNoCA, "the bundle must hold CA certificates, and client certificates only if they are self-signed",
				"check %q: certificate %d (%s) is not a CA", file, i+1, cert.SerialNumber.Text(16)))
			continue
		}
		if f := checkDates(file, cert, now); f == nil {
			usable = true
		} else if dated == nil {
			dated = f
		}
		b.add(cert)
		b.info = append(b.info, describeCert(role, file, cert))
	}
	if len(all) == 0 && !usable {
		all.add(dated)
	}
	if len(all) > 0 {
		return nil, all.join()
	}
	return b, nil
}
