package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// readCRLs parses the lists of a file. Where some of it cannot be understood, it returns the other
// lists beside the faults: each is signed on its own.
func readCRLs(file string, data []byte) ([]*crl, error) {
	var all faults
	ders, err := splitCRLs(file, data)
	all.add(err)
	var lists []*crl
	for i, der := range ders {
		l, err := parseCRL(file, der)
		if f, ok := recogniseDER(file, der, wantCRLs); err != nil && ok {
			all.add(newFault(file, ReasonParse, f.cure, "parse %q: part %d is no CRL: %w", file, i+1, f))
			continue
		}
		if err != nil {
			all.add(faultyCRL(file, i+1, err))
			continue
		}
		l.number = i + 1
		lists = append(lists, l)
	}
	return lists, all.join()
}

func faultyCRL(file string, number int, err error) *Fault {
	return newFault(file, ReasonCRL, "have the CA issue it again; until then the last good one stays", "check %q: CRL %d: %w", file, number, err)
}

// newRevocation is what lists say together, once each is proven by the bundle.
func newRevocation(lists []*crl, required bool, clients *bundle) (*revocation, []CRL) {
	r := &revocation{lists: make(map[string][]*crl), required: required, revokedCAs: make(map[[32]byte]bool)}
	var infos []CRL
	for _, l := range lists {
		r.lists[string(l.issuer)] = append(r.lists[string(l.issuer)], l)
		infos = append(infos, l.info)
	}
	r.findRevokedCAs(clients)
	r.digest = r.sum(clients)
	return r, infos
}

// splitCRLs accepts PEM, with other blocks between, or one or more DER lists in a row. Half
// a file is a fault, beside which it returns the lists that are whole.
func splitCRLs(file string, data []byte) ([][]byte, error) {
	const cure = "the file must hold CRLs in PEM or DER; a file that is being written is read again when it is complete"
	data = withoutBOM(data)
	var ders [][]byte
	if begun := bytes.Count(data, begin); begun > 0 {
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
			return ders, damagedBlocks(file, data, begun-blocks, begun, cure)
		}
	} else if isUTF16(data) {
		return nil, nothingWanted(file, data, wantCRLs, cure)
	} else {
		for rest := data; len(rest) > 0; {
			var one asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &one); err != nil {
				if f, ok := recognise(file, data, wantCRLs); ok && len(ders) == 0 {
					return nil, newFault(file, ReasonParse, f.cure, "parse %q: %w", file, f)
				}
				return ders, newFault(file, ReasonParse, cure, "parse %q: CRL %d is incomplete or damaged", file, len(ders)+1)
			}
			ders = append(ders, one.FullBytes)
		}
	}
	if len(ders) == 0 {
		return nil, nothingWanted(file, data, wantCRLs, cure)
	}
	return ders, nil
}

func parseCRL(file string, der []byte) (*crl, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	l := &crl{
		info: CRL{File: file, Issuer: list.Issuer.String(), ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Entries: len(list.RevokedCertificateEntries)},
		// Copies: the file's bytes are dropped.
		sum:    sha256.Sum256(der),
		issuer: bytes.Clone(list.RawIssuer),
		signed: x509.RevocationList{
			RawTBSRevocationList: bytes.Clone(list.RawTBSRevocationList), Signature: bytes.Clone(list.Signature),
			SignatureAlgorithm: list.SignatureAlgorithm, AuthorityKeyId: bytes.Clone(list.AuthorityKeyId),
		},
		signers: newBounded[[32]byte, bool](maxSigners),
	}
	if err := l.readExtensions(list); err != nil {
		return nil, err
	}
	if list.NextUpdate.IsZero() {
		return nil, errors.New("it has no nextUpdate (RFC 5280, 5.1.2.5)")
	}
	l.readEntries(list)
	return l, nil
}

func (l *crl) readEntries(list *x509.RevocationList) {
	l.revoked = make(map[string]struct{}, len(list.RevokedCertificateEntries))
	keys := make([]string, 0, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		key := serialKey(e.SerialNumber)
		l.revoked[key] = struct{}{}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	h := sha256.New()
	for _, key := range slices.Compact(keys) {
		h.Write([]byte{byte(len(key))}) // 20 bytes at most (RFC 5280, 4.1.2.2); longer ones only cost a needless look
		h.Write([]byte(key))
	}
	l.entries = [32]byte(h.Sum(nil))
}

var (
	oidDelta  = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidPoint  = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAKI    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidNumber = asn1.ObjectIdentifier{2, 5, 29, 20}
)

// readExtensions refuses lists that do not say what they seem to say: deltas,
// those of other CAs' or of attribute certificates, and critical unknowns
// (RFC 5280, 5.2). A partition names the distribution points that it covers.
func (l *crl) readExtensions(list *x509.RevocationList) error {
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			return errors.New("it is a delta CRL: a complete one is needed")
		case e.Id.Equal(oidPoint):
			if err := l.readPoint(e.Value); err != nil {
				return err
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

// readPoint reads an issuing distribution point (RFC 5280, 5.2.5).
func (l *crl) readPoint(der []byte) error {
	var p struct {
		Point struct {
			FullName []asn1.RawValue `asn1:"optional,tag:0"`
			Relative asn1.RawValue   `asn1:"optional,tag:1"`
		} `asn1:"optional,tag:0"`
		OnlyUser      bool           `asn1:"optional,tag:1"`
		OnlyCA        bool           `asn1:"optional,tag:2"`
		Reasons       asn1.BitString `asn1:"optional,tag:3"`
		Indirect      bool           `asn1:"optional,tag:4"`
		OnlyAttribute bool           `asn1:"optional,tag:5"`
	}
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) > 0 {
		return errors.New("its issuing distribution point cannot be read")
	}
	if p.OnlyCA || p.Indirect || p.OnlyAttribute || p.Reasons.BitLength > 0 {
		return errors.New("it covers only some certificates or reasons: a complete one is needed")
	}
	l.partial = len(p.Point.FullName) > 0 || len(p.Point.Relative.FullBytes) > 0
	const uri = 6 // GeneralName (RFC 5280, 4.2.1.6)
	for _, name := range p.Point.FullName {
		if name.Class == asn1.ClassContextSpecific && name.Tag == uri {
			l.points = append(l.points, string(name.Bytes))
		}
	}
	return nil
}

// provenBy returns the list as it is used with a bundle. A list whose issuer is in the bundle must bear its
// signature; another may belong to an intermediate that clients send, and is checked against that one. A CA with
// another key identifier is another CA of the same name.
func (l *crl) provenBy(clients *bundle) (*crl, error) {
	var named *x509.Certificate
	for _, ca := range clients.certs {
		if !bytes.Equal(ca.RawSubject, l.issuer) {
			continue
		}
		if l.anchored && l.signedBy(ca) {
			return l, nil
		}
		if l.signedBy(ca) {
			return l.withSigner(sha256.Sum256(ca.RawSubjectPublicKeyInfo), true), nil
		}
		if aki := l.signed.AuthorityKeyId; len(aki) == 0 || len(ca.SubjectKeyId) == 0 || bytes.Equal(aki, ca.SubjectKeyId) {
			named = ca
		}
	}
	switch {
	case named == nil:
		return l.unanchored(), nil
	case named.KeyUsage != 0 && named.KeyUsage&x509.KeyUsageCRLSign == 0:
		return nil, errors.New("the client CA which it names may not sign CRLs: its key usage lacks cRLSign")
	}
	return nil, errors.New("its signature is not that of the client CA which it names")
}

// unanchored returns the list as it is used with a bundle that does not hold its signer.
func (l *crl) unanchored() *crl {
	if !l.anchored {
		return l
	}
	return l.withSigner(l.signer, false)
}

// withSigner copies the list without what only a signature check needs. l itself may be in use by handshakes.
func (l *crl) withSigner(signer [32]byte, anchored bool) *crl {
	return &crl{
		info: l.info, number: l.number, sum: l.sum, issuer: l.issuer, points: l.points, partial: l.partial, revoked: l.revoked, entries: l.entries,
		signed: x509.RevocationList{AuthorityKeyId: l.signed.AuthorityKeyId}, signer: signer, anchored: anchored,
	}
}
