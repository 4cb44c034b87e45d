package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync/atomic"
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

// clockSkew: a list may begin this far ahead of our clock. CAs publish theirs the
// moment they are signed.
const clockSkew = 5 * time.Minute

// crl is one list. It counts for a CA only once that CA's signature was proven.
type crl struct {
	info    CRL
	number  int                 // its place in the file, from 1
	sum     [32]byte            // SHA-256 of the DER
	issuer  []byte              // the name, DER
	points  []string            // of a partition: the distribution points that it covers
	partial bool                // it is a partition
	revoked map[string]struct{} // by serialKey
	entries [32]byte            // a digest of them
	// signed is what a signature is checked with. Its TBS, which holds all entries again,
	// is dropped once a CA of a bundle is proven to be the signer.
	signed   x509.RevocationList
	signer   [32]byte // SHA-256 of that CA's key
	anchored bool     // that CA is in the bundle that the list is used with
	// signers remembers, by SHA-256, which keys of CAs that clients send signed a
	// list without a signer in the bundle. A client with a CA of its own can make
	// any number of keys for one name, so a key that was forgotten is tried again.
	signers *bounded[[32]byte, bool]
	used    atomic.Bool // it was proven, or the one before it was
}

// maxSigners bounds crl.signers, 33 bytes each. A CA that changes its key has two.
const maxSigners = 64

// signedBy is called with CAs that bear the issuer's name.
func (l *crl) signedBy(ca *x509.Certificate) bool {
	sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	if l.signed.RawTBSRevocationList == nil {
		if sum == l.signer && !l.anchored && !l.used.Load() {
			l.used.Store(true)
		}
		return sum == l.signer
	}
	if signed, known := l.signers.get(sum); known {
		return signed
	}
	signed := l.signed.CheckSignatureFrom(ca) == nil
	l.signers.put(sum, signed)
	if signed {
		l.used.Store(true)
	}
	return signed
}

// serialKey differs for numbers of different sign.
func serialKey(n *big.Int) string {
	if n.Sign() < 0 {
		return "\x00-" + string(n.Bytes()) // Bytes never begins with a zero
	}
	return string(n.Bytes())
}

func (l *crl) lists(cert *x509.Certificate) bool {
	_, ok := l.revoked[serialKey(cert.SerialNumber)]
	return ok
}

func (l *crl) begun(now time.Time) bool  { return !now.Add(clockSkew).Before(l.info.ThisUpdate) }
func (l *crl) inDate(now time.Time) bool { return l.begun(now) && !now.After(l.info.NextUpdate) }

// covers says whether the list would name cert if it were revoked (RFC 5280, 6.3.3 b).
func (l *crl) covers(cert *x509.Certificate) bool {
	return !l.partial || slices.ContainsFunc(cert.CRLDistributionPoints, func(point string) bool { return slices.Contains(l.points, point) })
}

// revocation is what all lists say together: an entry in any of them counts.
type revocation struct {
	lists map[string][]*crl // by the issuer's name, DER
	// required: the issuer of a client's leaf must have a list that is in date.
	required bool
	// revokedCAs are those of the bundle that a CA above them in the bundle
	// revoked, by SHA-256: as anchors nobody above them would be asked.
	revokedCAs map[[32]byte]bool
	digest     [32]byte // of the entries and of the CAs that proved them, not of the dates
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
		switch {
		case !l.covers(chain[0]):
		case l.inDate(now):
			err = nil
		case !l.begun(now) && !errors.Is(err, ErrCRLExpired):
			err = ErrCRLEarly
		default:
			err = ErrCRLExpired
		}
		return err != nil
	})
	return err
}

// findRevokedCAs goes down from the roots of the bundle: a CA is revoked if a CA
// of the bundle that issued it revoked it, or if all that issued it are revoked.
func (r *revocation) findRevokedCAs(clients *bundle) {
	above := make([][]*x509.Certificate, len(clients.certs))
	for i, ca := range clients.certs {
		for _, other := range clients.certs {
			if ca != other && bytes.Equal(ca.RawIssuer, other.RawSubject) && ca.CheckSignatureFrom(other) == nil {
				above[i] = append(above[i], other)
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for i, ca := range clients.certs {
			sum := sha256.Sum256(ca.Raw)
			if !r.revokedCAs[sum] && r.revokedByAny(ca, above[i]) {
				r.revokedCAs[sum], changed = true, true
			}
		}
	}
}

func (r *revocation) revokedByAny(ca *x509.Certificate, above []*x509.Certificate) bool {
	lost := 0
	for _, issuer := range above {
		if r.revokedBy(issuer, ca) {
			return true
		}
		if r.revokedCAs[sha256.Sum256(issuer.Raw)] {
			lost++
		}
	}
	// A root that is cross-signed stands for itself.
	return lost > 0 && lost == len(above) && !bytes.Equal(ca.RawSubject, ca.RawIssuer)
}

// sum is a digest of the revoked serials and of the CAs that revoked them; dates and order do not matter.
func (r *revocation) sum(clients *bundle) [32]byte {
	var all [][32]byte
	for issuer, lists := range r.lists {
		for _, l := range lists {
			h := sha256.New()
			fmt.Fprintf(h, "%d %s", len(issuer), issuer)
			h.Write(l.entries[:])
			for _, ca := range clients.certs {
				if bytes.Equal(ca.RawSubject, l.issuer) && l.signedBy(ca) {
					key := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
					h.Write(key[:])
				}
			}
			if len(l.signed.AuthorityKeyId) > 0 {
				h.Write(l.signed.AuthorityKeyId)
			} else {
				h.Write(l.signed.RawTBSRevocationList)
			}
			all = append(all, [32]byte(h.Sum(nil)))
		}
	}
	slices.SortFunc(all, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, slices.Compact(all))
	return [32]byte(h.Sum(nil))
}
