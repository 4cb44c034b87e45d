package certs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// succession is a CRL file that follows the lists in use.
type succession struct {
	file    string
	clients *bundle
	sameCAs bool // the bundle is the one that the lists in use were proven by
	whole   bool // every list of the file was understood
	// faulty holds the series of lists of the file that count for nothing.
	faulty map[string]bool
	now    time.Time
}

// merge returns the lists to use from now on, and faults where the file says less than the lists in use: one is gone, or
// older than it was, or not valid yet where its predecessor is. Otherwise a file put back, a failed download or a wrong
// clock would let revoked clients in or keep all out. Where a list has no proper successor, it stays in use itself. Of the
// file, every list counts that takes trust away: each is signed on its own, so the faults of others do not hold it back.
func (s *succession) merge(next, last []*crl) ([]*crl, error) {
	has, had := newest(next, s.now), newest(last, s.now)
	retained, refused := make(map[string]bool), make(map[string]bool)
	var all faults
	for _, series := range slices.Sorted(maps.Keys(had)) {
		old, successor := had[series], has[series]
		if successor != nil && old.used.Load() {
			successor.used.Store(true)
		}
		switch {
		case successor == nil && (s.faulty[series] || !s.whole):
			retained[series] = true
		case !old.begun(s.now) || successor == nil && old.spent(s.clients, s.sameCAs, s.now):
		case successor == nil:
			retained[series] = true
			all.add(newFault(s.file, ReasonCRL, "put its CRL back, or take the CA out of the bundle; until then the last good ones stay",
				"check %q: the CRL of %q is not there any more", s.file, old.info.Issuer))
		case !successor.begun(s.now):
			retained[series] = true
			all.add(newFault(s.file, ReasonCRL, "wait until then, or set the clock of this machine or of the CA; until then the last good one stays beside it",
				"check %q: the CRL of %q is not valid before %s", s.file, old.info.Issuer, date(successor.info.ThisUpdate)))
		case successor.info.ThisUpdate.Before(old.info.ThisUpdate):
			retained[series], refused[series] = true, true
			all.add(newFault(s.file, ReasonCRL, "fetch the current one; after a restart the older one would be taken",
				"check %q: the CRL of %q is of %s, older than the one in use, of %s", s.file, old.info.Issuer,
				date(successor.info.ThisUpdate), date(old.info.ThisUpdate)))
		}
	}
	lists := slices.DeleteFunc(slices.Clone(next), func(l *crl) bool { return refused[l.series()] })
	for _, l := range last {
		if retained[l.series()] && !slices.ContainsFunc(lists, func(other *crl) bool { return other.sum == l.sum }) {
			lists = append(lists, s.proven(l))
		}
	}
	return lists, all.join()
}

// proven returns a list in use as it is used with the bundle that comes. If that holds another CA of the signer's name,
// the list counts for the signer only.
func (s *succession) proven(l *crl) *crl {
	if s.sameCAs {
		return l
	}
	p, err := l.provenBy(s.clients)
	if err != nil {
		return l.unanchored()
	}
	return p
}

// series is the lists that replace one another: of one CA, for the same
// certificates.
func (l *crl) series() string {
	return fmt.Sprintf("%q %x %q", l.issuer, l.signed.AuthorityKeyId, strings.Join(l.points, "\n"))
}

// newest of each series, of those that have begun where there are any.
func newest(lists []*crl, now time.Time) map[string]*crl {
	newest := make(map[string]*crl)
	for _, l := range lists {
		series := l.series()
		best := newest[series]
		if best == nil || l.begun(now) && (!best.begun(now) || l.info.ThisUpdate.After(best.info.ThisUpdate)) {
			newest[series] = l
		}
	}
	return newest
}

// spent reports whether the list may disappear without weakening revocation: its CA is trusted no more; or the list may be
// that of an intermediate that clients send, and none ever sent that one, or the list has aged, or may have gone with a CA
// of the bundle.
func (l *crl) spent(clients *bundle, sameCAs bool, now time.Time) bool {
	if l.anchored {
		return !slices.ContainsFunc(clients.certs, l.signedBy)
	}
	return !l.used.Load() || !sameCAs || !l.inDate(now)
}
