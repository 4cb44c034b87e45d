package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// follows faults a CRL file that says less than the one before it: a list is gone,
// or older than it was, or not valid yet where its predecessor is. Otherwise a
// file put back, a failed download or a wrong clock would let revoked clients in
// or keep all out.
func (s *Snapshot) follows(last *Snapshot) error {
	now, file := s.opts.clock(), s.opts.CRLFile
	sameCAs := s.clients.sum() == last.clients.sum()
	has := s.revocation.newest(now)
	var all faults
	for series, had := range last.revocation.newest(now) {
		next := has[series]
		if next != nil && had.used.Load() {
			next.used.Store(true)
		}
		switch {
		case !had.begun(now) || next == nil && had.spent(s.clients, sameCAs, now):
		case next == nil:
			all.add(newFault(file, ReasonCRL, "put its CRL back, or take the CA out of the bundle; until then the last good ones stay",
				"check %q: the CRL of %q is not there any more", file, had.info.Issuer))
		case !next.begun(now):
			all.add(newFault(file, ReasonCRL, "wait until then, or set the clock of this machine or of the CA; until then the last good one stays",
				"check %q: the CRL of %q is not valid before %s", file, had.info.Issuer, next.info.ThisUpdate.UTC().Format(time.RFC3339)))
		case next.info.ThisUpdate.Before(had.info.ThisUpdate):
			all.add(newFault(file, ReasonCRL, "fetch the current one; after a restart the older one would be taken",
				"check %q: the CRL of %q is of %s, older than the one in use, of %s", file, had.info.Issuer,
				next.info.ThisUpdate.UTC().Format(time.RFC3339), had.info.ThisUpdate.UTC().Format(time.RFC3339)))
		}
	}
	return all.join()
}

// series is the lists that replace one another: of one CA, for the same
// certificates.
func (l *crl) series() string {
	return fmt.Sprintf("%q %x %q", l.issuer, l.signed.AuthorityKeyId, strings.Join(l.points, "\n"))
}

// newest of each series, of those that have begun where there are any.
func (r *revocation) newest(now time.Time) map[string]*crl {
	newest := make(map[string]*crl)
	for _, lists := range r.lists {
		for _, l := range lists {
			series := l.series()
			best := newest[series]
			if best == nil || l.begun(now) && (!best.begun(now) || l.info.ThisUpdate.After(best.info.ThisUpdate)) {
				newest[series] = l
			}
		}
	}
	return newest
}

// spent says that nobody misses the list: its CA is trusted no more, or it may be
// that of an intermediate that clients send, but none ever sent that one, or it
// has aged, or may have gone with a CA of the bundle.
func (l *crl) spent(clients *bundle, sameCAs bool, now time.Time) bool {
	if l.signed.RawTBSRevocationList == nil { // a CA of the bundle was proven to be the signer
		return !slices.ContainsFunc(clients.certs, func(ca *x509.Certificate) bool { return l.signedBy(ca) })
	}
	return !l.used.Load() || !sameCAs || !l.inDate(now)
}
