package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// CRL describes one certificate revocation list in use (RFC 5280, 5).
type CRL struct {
	File       string
	Issuer     string
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    int
}

// crl is one list. It counts for a CA only once that CA's signature was proven.
type crl struct {
	info    CRL
	issuer  []byte // the name, DER
	revoked map[string]struct{}
	// signed holds what a signature is checked with, not the entries.
	signed  x509.RevocationList
	signers sync.Map // SHA-256 of a CA's certificate -> bool
}

// signedBy is called with CAs that bear the issuer's name; there are few of them.
func (l *crl) signedBy(ca *x509.Certificate) bool {
	sum := sha256.Sum256(ca.Raw)
	if known, ok := l.signers.Load(sum); ok {
		return known.(bool)
	}
	ok := l.signed.CheckSignatureFrom(ca) == nil
	l.signers.Store(sum, ok)
	return ok
}

func (l *crl) lists(cert *x509.Certificate) bool {
	_, ok := l.revoked[string(cert.SerialNumber.Bytes())]
	return ok
}

func (l *crl) inDate(now time.Time) bool {
	return !now.Before(l.info.ThisUpdate) && !now.After(l.info.NextUpdate)
}

// revocation is what all lists say together: an entry in any of them counts.
type revocation struct {
	lists map[string][]*crl // by the issuer's name, DER
	// required: the issuer of a client's leaf must have a list that is in date.
	required bool
	// revokedCAs are those of the bundle that another CA of the bundle revoked,
	// by SHA-256: as anchors nobody above them would be asked.
	revokedCAs map[[32]byte]bool
	digest     [32]byte // of the entries, not of the dates
}

// of yields the lists of ca, proven.
func (r *revocation) of(ca *x509.Certificate, yield func(*crl) bool) {
	for _, l := range r.lists[string(ca.RawSubject)] {
		if l.signedBy(ca) && !yield(l) {
			return
		}
	}
}

func (r *revocation) revokedBy(ca, cert *x509.Certificate) bool {
	found := false
	r.of(ca, func(l *crl) bool {
		found = l.lists(cert)
		return !found
	})
	return found
}

// check judges a chain, leaf first. For a live session only entries count: that
// a list aged or went away says nothing new about its certificate.
func (r *revocation) check(chain []*x509.Certificate, live bool, now time.Time) error {
	for i, cert := range chain[:len(chain)-1] {
		if r.revokedBy(chain[i+1], cert) {
			return ErrClientRevoked
		}
	}
	if r.revokedCAs[sha256.Sum256(chain[len(chain)-1].Raw)] {
		return ErrClientRevoked
	}
	if live || !r.required {
		return nil
	}
	err := ErrNoCRL
	r.of(chain[min(1, len(chain)-1)], func(l *crl) bool {
		err = ErrCRLExpired
		if l.inDate(now) {
			err = nil
		}
		return err != nil
	})
	return err
}

// parseCRLs reads all lists of a file. A list whose issuer is in the bundle must
// bear its signature; another may belong to an intermediate that clients send,
// and is checked against that one.
func parseCRLs(c contents, o *Options, clients *bundle) (*revocation, []CRL, error) {
	data, err := c.get(o.CRLFile)
	if err != nil {
		return nil, nil, err
	}
	ders, err := splitCRLs(o.CRLFile, data)
	if err != nil {
		return nil, nil, err
	}
	r := &revocation{lists: make(map[string][]*crl), required: !o.CRLWarn, revokedCAs: make(map[[32]byte]bool)}
	var infos []CRL
	var all faults
	for i, der := range ders {
		l, err := parseCRL(o.CRLFile, der)
		if err == nil {
			err = checkIssuers(l, clients)
		}
		if err != nil {
			all.add(newFault(o.CRLFile, ReasonCRL, "have the CA issue it anew; until then the last good one stays", "check %q: CRL %d: %w", o.CRLFile, i+1, err))
			continue
		}
		r.lists[string(l.issuer)] = append(r.lists[string(l.issuer)], l)
		infos = append(infos, l.info)
	}
	if len(all) > 0 {
		return nil, nil, all.join()
	}
	r.findRevokedCAs(clients)
	r.digest = r.entries()
	return r, infos, nil
}

// splitCRLs accepts PEM, with other blocks between, or one or more DER lists in
// a row; as with certificates, half a file is no file.
func splitCRLs(file string, data []byte) ([][]byte, error) {
	const cure = "the file must hold CRLs in PEM or DER; a file that is being written is read again when it is complete"
	var ders [][]byte
	if begun := bytes.Count(data, []byte("-----BEGIN ")); begun > 0 {
		blocks := 0
		for rest := data; ; blocks++ {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type == "X509 CRL" {
				ders = append(ders, block.Bytes)
			}
		}
		if blocks != begun {
			return nil, newFault(file, ReasonParse, cure, "parse %q: %d of %d PEM blocks are incomplete or damaged", file, begun-blocks, begun)
		}
	} else {
		for rest := data; len(rest) > 0; {
			var one asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &one); err != nil {
				return nil, newFault(file, ReasonParse, cure, "parse %q: CRL %d is incomplete or damaged", file, len(ders)+1)
			}
			ders = append(ders, one.FullBytes)
		}
	}
	if len(ders) == 0 {
		return nil, newFault(file, ReasonParse, cure, "parse %q: it holds no CRL", file)
	}
	return ders, nil
}

func parseCRL(file string, der []byte) (*crl, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if err := checkExtensions(list); err != nil {
		return nil, err
	}
	if list.NextUpdate.IsZero() {
		return nil, errors.New("it has no nextUpdate (RFC 5280, 5.1.2.5)")
	}
	l := &crl{
		info: CRL{File: file, Issuer: list.Issuer.String(), ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Entries: len(list.RevokedCertificateEntries)},
		// Copies: the file's bytes are dropped.
		issuer:  bytes.Clone(list.RawIssuer),
		revoked: make(map[string]struct{}, len(list.RevokedCertificateEntries)),
	}
	for _, e := range list.RevokedCertificateEntries {
		l.revoked[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	l.signed = x509.RevocationList{
		RawTBSRevocationList: bytes.Clone(list.RawTBSRevocationList), Signature: bytes.Clone(list.Signature),
		SignatureAlgorithm: list.SignatureAlgorithm, AuthorityKeyId: bytes.Clone(list.AuthorityKeyId),
	}
	return l, nil
}

var (
	oidDelta  = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidPoint  = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAKI    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidNumber = asn1.ObjectIdentifier{2, 5, 29, 20}
)

// checkExtensions refuses lists that do not say what they seem to say: deltas,
// those of other CAs' or of attribute certificates, and critical unknowns
// (RFC 5280, 5.2). Partitions of one CA's list count together.
func checkExtensions(list *x509.RevocationList) error {
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			return errors.New("it is a delta CRL: a complete one is needed")
		case e.Id.Equal(oidPoint):
			var p struct {
				Point         asn1.RawValue  `asn1:"optional,tag:0"`
				OnlyUser      bool           `asn1:"optional,tag:1"`
				OnlyCA        bool           `asn1:"optional,tag:2"`
				Reasons       asn1.BitString `asn1:"optional,tag:3"`
				Indirect      bool           `asn1:"optional,tag:4"`
				OnlyAttribute bool           `asn1:"optional,tag:5"`
			}
			if rest, err := asn1.Unmarshal(e.Value, &p); err != nil || len(rest) > 0 {
				return errors.New("its issuing distribution point cannot be read")
			}
			if p.OnlyCA || p.Indirect || p.OnlyAttribute || p.Reasons.BitLength > 0 {
				return errors.New("it covers only some certificates or reasons: a complete one is needed")
			}
		case e.Critical && !e.Id.Equal(oidAKI) && !e.Id.Equal(oidNumber):
			return fmt.Errorf("it has an unknown critical extension %s", e.Id)
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return fmt.Errorf("an entry has an unknown critical extension %s", e.Id)
			}
		}
	}
	return nil
}

// checkIssuers faults a list that a CA of the bundle should have signed and did
// not. A CA with another key identifier is another CA of the same name.
func checkIssuers(l *crl, clients *bundle) error {
	candidates := 0
	for _, ca := range clients.certs {
		if !bytes.Equal(ca.RawSubject, l.issuer) {
			continue
		}
		if l.signedBy(ca) {
			return nil
		}
		if aki := l.signed.AuthorityKeyId; len(aki) == 0 || len(ca.SubjectKeyId) == 0 || bytes.Equal(aki, ca.SubjectKeyId) {
			candidates++
		}
	}
	if candidates > 0 {
		return errors.New("its signature is not that of the client CA which it names")
	}
	return nil
}

func (r *revocation) findRevokedCAs(clients *bundle) {
	for _, ca := range clients.certs {
		for _, above := range clients.certs {
			if ca != above && bytes.Equal(ca.RawIssuer, above.RawSubject) &&
				ca.CheckSignatureFrom(above) == nil && r.revokedBy(above, ca) {
				r.revokedCAs[sha256.Sum256(ca.Raw)] = true
			}
		}
	}
}

// entries is a digest of who is revoked; it depends on neither dates nor order.
func (r *revocation) entries() [32]byte {
	var all [][32]byte
	for issuer, lists := range r.lists {
		for _, l := range lists {
			for serial := range l.revoked {
				all = append(all, sha256.Sum256(fmt.Appendf(nil, "%d %s %s", len(issuer), issuer, serial)))
			}
		}
	}
	slices.SortFunc(all, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, slices.Compact(all))
	return [32]byte(h.Sum(nil))
}
