package identity

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"hash"
	"slices"
	"strings"
	"unicode"
)

// Subject is what a verified certificate says about its holder. The zero Subject
// proves nothing and matches no pattern.
type Subject struct {
	// ID is a digest of the trust anchor's key, the subject and the set of subject
	// alternative names (every kind, byte for byte). A renewed certificate, with
	// another serial, key and dates, has the same ID; the same names under
	// another CA have another.
	ID [32]byte

	// Only names that may be compared, in the form in which they are.
	cn, ou, email []string
	dns           []domainName
	uri           []uriName

	serial string
	spki   [32]byte
	cas    [][32]byte // SPKI digests of the chain above the leaf
}

func (s *Subject) proven() bool { return s.serial != "" }

// FromChain reads one verified chain, leaf first and trust anchor last, as in
// tls.ConnectionState.VerifiedChains. An empty chain gives the zero Subject.
func FromChain(chain []*x509.Certificate) Subject {
	if len(chain) == 0 {
		return Subject{}
	}
	leaf := chain[0]
	s := Subject{serial: leaf.SerialNumber.Text(16), spki: spkiSum(leaf)}
	for _, ca := range chain[1:] {
		s.cas = append(s.cas, spkiSum(ca))
	}
	s.readSubject(leaf)
	sans := readSANs(leaf)
	for _, san := range sans {
		s.addSAN(san)
	}
	s.ID = digest(spkiSum(chain[len(chain)-1]), leaf.RawSubject, sans)
	return s
}

func spkiSum(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

var (
	oidCommonName         = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOrganizationalUnit = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidSubjectAltName     = asn1.ObjectIdentifier{2, 5, 29, 17}
)

func (s *Subject) readSubject(leaf *x509.Certificate) {
	names := 0
	for _, attribute := range leaf.Subject.Names {
		value, _ := attribute.Value.(string)
		switch {
		case attribute.Type.Equal(oidCommonName):
			names++
			if clean(value) {
				s.cn = append(s.cn, value)
			}
		case attribute.Type.Equal(oidOrganizationalUnit) && clean(value):
			s.ou = append(s.ou, value)
		}
	}
	// Of two common names OpenSSL takes the first and crypto/x509 the last: none is safe.
	if names > 1 {
		s.cn = nil
	}
}

// san is one subject alternative name as encoded.
type san struct {
	tag   int // of GeneralName; RFC 5280, 4.2.1.6
	value []byte
}

const (
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6

	tagUnread = -1 // the whole extension: it gives no name, but tells two identities apart
)

// readSANs reads the extension itself: crypto/x509 keeps neither the kinds it
// does not know nor the bytes of a URI. The result is a sorted set.
func readSANs(leaf *x509.Certificate) []san {
	var all []san
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var names asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) > 0 || names.Tag != asn1.TagSequence {
			all = append(all, san{tagUnread, e.Value})
			continue
		}
		for rest := names.Bytes; len(rest) > 0; {
			var name asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				all = append(all, san{tagUnread, e.Value})
				break
			}
			switch {
			case name.Class != asn1.ClassContextSpecific:
			case name.IsCompound && (name.Tag == tagDNS || name.Tag == tagEmail || name.Tag == tagURI):
				// Not a name (X.690, 10.2): a verifier that checks name constraints does not see it as one.
				all = append(all, san{tagUnread, name.FullBytes})
			default:
				all = append(all, san{name.Tag, name.Bytes})
			}
		}
	}
	slices.SortFunc(all, func(a, b san) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), bytes.Compare(a.value, b.value))
	})
	return slices.CompactFunc(all, func(a, b san) bool { return a.tag == b.tag && bytes.Equal(a.value, b.value) })
}

// addSAN leaves out what may not be compared: control characters, stars, names
// that are none.
func (s *Subject) addSAN(n san) {
	name := string(n.value)
	if !clean(name) || strings.Contains(name, "*") {
		return
	}
	switch n.tag {
	case tagDNS:
		if domain, ok := normalDomain(name); ok {
			s.dns = append(s.dns, domainName{domain, strings.Split(domain, ".")})
		}
	case tagEmail:
		if address, ok := normalEmail(name); ok {
			s.email = append(s.email, address)
		}
	case tagURI:
		if u, problem := parseURI(name); problem == "" {
			s.uri = append(s.uri, u)
		}
	}
}

func digest(anchor [32]byte, subject []byte, sans []san) [32]byte {
	h := sha256.New()
	h.Write([]byte("dragontls identity 1\n"))
	h.Write(anchor[:])
	writeBytes(h, subject)
	for _, n := range sans {
		writeNumber(h, n.tag)
		writeBytes(h, n.value)
	}
	return [32]byte(h.Sum(nil))
}

// Nothing written with its length in front can be read as something else.
func writeBytes(h hash.Hash, b []byte) {
	writeNumber(h, len(b))
	h.Write(b)
}

func writeStrings(h hash.Hash, list []string) {
	writeNumber(h, len(list))
	for _, s := range list {
		writeBytes(h, []byte(s))
	}
}

func writeNumber(h hash.Hash, n int) { h.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) }

// maxName bounds what a certificate can put into a line of a log, in bytes.
const maxName = 128

// Name is for people: the first URI, DNS name, common name or e-mail address
// with its kind, else the serial. It is printable, at most maxName bytes and an
// ellipsis, the same after a renewal unless it is the serial, and no proof of anything.
func (s *Subject) Name() string {
	name := "serial:" + s.serial
	switch {
	case !s.proven():
		return ""
	case len(s.uri) > 0:
		name = "uri:" + s.uri[0].String()
	case len(s.dns) > 0:
		name = "dns:" + s.dns[0].text
	case len(s.cn) > 0:
		name = "cn:" + s.cn[0]
	case len(s.email) > 0:
		name = "email:" + s.email[0]
	}
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, name)
	return cut(name, maxName)
}
