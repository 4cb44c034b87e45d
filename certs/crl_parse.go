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

	"dragontls/certs/reload"
)

// crlCache keeps what was parsed last: a list may have a million entries, and the
// other files change more often. Used by one reload at a time.
type crlCache struct {
	file, bundle [32]byte // what it was made of
	lists        []*crl
}

// parseCRLs reads all lists of a file. A list whose issuer is in the bundle must
// bear its signature; another may belong to an intermediate that clients send,
// and is checked against that one.
func parseCRLs(c reload.Contents, o *Options, clients *bundle) (*revocation, []CRL, error) {
	data, err := c.Get(o.CRLFile)
	if err != nil {
		return nil, nil, err
	}
	cache := o.crls
	if cache == nil {
		cache = &crlCache{}
	}
	if err := cache.fill(o.CRLFile, data, clients); err != nil {
		return nil, nil, err
	}
	r := &revocation{lists: make(map[string][]*crl), required: !o.CRLWarn, revokedCAs: make(map[[32]byte]bool)}
	var infos []CRL
	for _, l := range cache.lists {
		r.lists[string(l.issuer)] = append(r.lists[string(l.issuer)], l)
		infos = append(infos, l.info)
	}
	r.findRevokedCAs(clients)
	r.digest = r.sum(clients)
	return r, infos, nil
}

func (c *crlCache) fill(file string, data []byte, clients *bundle) error {
	sum, bundle := sha256.Sum256(data), clients.sum()
	if c.lists != nil && c.file == sum && c.bundle == bundle {
		return nil
	}
	ders, err := splitCRLs(file, data)
	if err != nil {
		return err
	}
	var lists []*crl
	var all faults
	for i, der := range ders {
		l, err := parseCRL(file, der)
		if err == nil {
			err = l.prove(clients)
		}
		if err != nil {
			all.add(newFault(file, ReasonCRL, "have the CA issue it anew; until then the last good one stays", "check %q: CRL %d: %w", file, i+1, err))
			continue
		}
		lists = append(lists, l)
	}
	if len(all) > 0 {
		return all.join()
	}
	*c = crlCache{file: sum, bundle: bundle, lists: lists}
	return nil
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
	l := &crl{
		info: CRL{File: file, Issuer: list.Issuer.String(), ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Entries: len(list.RevokedCertificateEntries)},
		// Copies: the file's bytes are dropped.
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

// prove looks for the signer in the bundle, and faults a list that a CA of it
// should have signed and did not. A CA with another key identifier is another CA
// of the same name.
func (l *crl) prove(clients *bundle) error {
	var named *x509.Certificate
	for _, ca := range clients.certs {
		if !bytes.Equal(ca.RawSubject, l.issuer) {
			continue
		}
		if l.signedBy(ca) {
			l.signed.RawTBSRevocationList, l.signer = nil, sha256.Sum256(ca.RawSubjectPublicKeyInfo)
			l.signers = nil
			return nil
		}
		if aki := l.signed.AuthorityKeyId; len(aki) == 0 || len(ca.SubjectKeyId) == 0 || bytes.Equal(aki, ca.SubjectKeyId) {
			named = ca
		}
	}
	switch {
	case named == nil:
		return nil
	case named.KeyUsage != 0 && named.KeyUsage&x509.KeyUsageCRLSign == 0:
		return errors.New("the client CA which it names may not sign CRLs: its key usage lacks cRLSign")
	}
	return errors.New("its signature is not that of the client CA which it names")
}
