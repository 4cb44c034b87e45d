package certs

import (
	"crypto/x509"
	"slices"
	"time"

	"dragontls/certs/identity"
	"dragontls/certs/reload"
)

// keptCRL is the source of CRLs. Each list is signed on its own: where others of the file have faults, those that are good
// take away trust all the same.
type keptCRL struct {
	kept[[]*crl]

	found   []*crl // the lists of the file that were understood
	proven  []*crl // those that count with the bundle of the reload that runs
	wasHeld bool   // by the last reload

	// What was parsed last: a list may have a million entries, and a file with a fault is looked at again at each poll.
	parsedSum [32]byte
	parsed    []*crl
	parsedErr error
}

func newCRLSource(file string) *keptCRL {
	k := &keptCRL{kept: kept[[]*crl]{Source: reload.Source{Name: RoleCRL, Files: []string{file}, Reloaded: crlReloaded, Refused: crlRefused}}}
	k.parse = func(c reload.Contents) ([]*crl, time.Time, error) {
		if k.nextSum != k.parsedSum {
			data, err := c.Get(file)
			k.parsedSum, k.parsed, k.parsedErr = k.nextSum, nil, err
			if err == nil {
				k.parsed, k.parsedErr = readCRLs(file, data)
			}
		}
		k.found = k.parsed
		return k.parsed, lastEnd(k.parsed), k.parsedErr
	}
	return k
}

func (k *keptCRL) source() *reload.Source {
	if k == nil {
		return nil
	}
	return &k.Source
}

func (k *keptCRL) read(c reload.Contents) {
	k.found = k.good
	k.kept.read(c)
}

func (k *keptCRL) settle() {
	if k.wasHeld = k.err != nil; !k.wasHeld {
		k.next, k.fresh = k.proven, true
		k.parsedSum, k.parsed, k.parsedErr = [32]byte{}, nil, nil
	}
	k.kept.settle()
	k.found, k.proven = nil, nil
}

// lastEnd is the next update of the list that holds longest.
func lastEnd(lists []*crl) time.Time {
	var last time.Time
	for _, l := range lists {
		if l.info.NextUpdate.After(last) {
			last = l.info.NextUpdate
		}
	}
	return last
}

// composeTrust gives next the client CAs and the CRLs that hold together. Where they do not, the newest change is held
// back, but what it takes away is trusted no more. last is nil for the first snapshot.
func (s *sources) composeTrust(next, last *Snapshot) {
	if s.clients == nil {
		return
	}
	next.clients = s.clients.next
	if s.crl != nil && s.clients.fresh && s.clients.loaded {
		s.holdConflict(next)
	}
	if next.clients == nil {
		return // the first snapshot, and the bundle has a fault
	}
	if last != nil && last.clients.sum() == next.clients.sum() {
		next.clients = last.clients // with what was found out about clients
	}
	if s.crl != nil {
		s.composeCRLs(next, last)
	}
}

// holdConflict holds a new bundle back that does not fit the CRLs, unless it fits those in use: then their successors are
// what does not fit, and composeCRLs holds these back.
func (s *sources) holdConflict(next *Snapshot) {
	bundle := s.clients.next
	conflict := misfits(bundle, s.crl.next)
	if conflict == nil || s.crl.fresh && misfits(bundle, s.crl.good) == nil {
		return
	}
	file := s.clients.Files[0]
	s.clients.hold(newFault(file, ReasonCRL, "replace the CRLs together with the CA that signs them; until then the last good CAs stay, without those that are gone from the file",
		"check %q with the CRLs of %q: %w", file, s.crl.Files[0], conflict))
	s.narrowed = true
	next.clients = s.clients.good.without(bundle)
}

// misfits says which of the lists name a CA of the bundle that has not signed them.
func misfits(clients *bundle, lists []*crl) error {
	var all faults
	for _, l := range lists {
		if _, err := l.provenBy(clients); err != nil {
			all.add(faultyCRL(l.info.File, l.number, err))
		}
	}
	return all.join()
}

// without returns the bundle without the CAs that other does not have. A CA that was renewed with its key is still there.
func (b *bundle) without(other *bundle) *bundle {
	rest := newBundle()
	for i, ca := range b.certs {
		if slices.ContainsFunc(other.named[string(ca.RawSubject)], func(o *x509.Certificate) bool { return interchangeable(ca, o) }) {
			rest.add(ca)
			rest.info = append(rest.info, b.info[i])
		}
	}
	return rest
}

// composeCRLs gives next the lists of the file that are good, and those in use that have no proper successor there.
func (s *sources) composeCRLs(next, last *Snapshot) {
	k := s.crl
	sameCAs := last != nil && next.clients == last.clients
	if sameCAs && !k.fresh && k.err == nil && !k.wasHeld {
		k.proven = k.good
		next.revocation, next.CRLs = last.revocation, last.CRLs
		return
	}
	var all faults
	all.add(k.err)
	follows := succession{file: k.Files[0], clients: next.clients, sameCAs: sameCAs, whole: k.err == nil, faulty: make(map[string]bool), now: next.LoadedAt}
	for _, l := range k.found {
		p, err := l.provenBy(next.clients)
		if err != nil && s.narrowed && misfits(s.clients.good, []*crl{l}) == nil {
			p, err = l.unanchored(), nil // its CA is on the way out
		}
		if err != nil {
			all.add(faultyCRL(k.Files[0], l.number, err))
			follows.faulty[l.series()] = true
			continue
		}
		k.proven = append(k.proven, p)
	}
	lists := k.proven
	if last != nil {
		var err error
		lists, err = follows.merge(k.proven, last.revocation.all())
		all.add(err)
	}
	if len(all) > 0 {
		k.hold(all.join())
	}
	if sameCAs && !k.fresh && sameLists(lists, last.revocation.all()) {
		next.revocation, next.CRLs = last.revocation, last.CRLs
		return
	}
	next.revocation, next.CRLs = newRevocation(lists, !next.opts.CRLWarn, next.clients)
}

func (r *revocation) all() []*crl {
	var all []*crl
	for _, lists := range r.lists {
		all = append(all, lists...)
	}
	return all
}

func sameLists(a, b []*crl) bool {
	sums := func(lists []*crl) map[[32]byte]bool {
		set := make(map[[32]byte]bool, len(lists))
		for _, l := range lists {
			set[l.sum] = true
		}
		return set
	}
	x, y := sums(a), sums(b)
	for sum := range x {
		if !y[sum] {
			return false
		}
	}
	return len(x) == len(y)
}

// composeLogin gives next the patterns and the users.
func (s *sources) composeLogin(next *Snapshot) {
	if patterns := s.patterns(&next.opts.Login); patterns != nil {
		next.login.allow = identity.NewSet(patterns)
	}
	if s.users != nil {
		next.login.users = s.users.next
	}
}

// compose makes one snapshot of what the sources hold. Faults are left with the sources. It returns nil if nothing is to
// be taken into use.
func (s *sources) compose(o *Options, last *Snapshot, random []byte, now time.Time) (*Snapshot, error) {
	next := &Snapshot{LoadedAt: now, opts: o, master: random}
	s.composeTrust(next, last)
	if last == nil && len(s.held()) > 0 {
		return nil, nil
	}
	if last != nil && !s.fresh() && next.clients == last.clients && next.revocation == last.revocation {
		return nil, nil
	}
	for _, k := range s.pairs {
		p := k.next.again()
		next.pairs = append(next.pairs, p)
		next.Certs = append(next.Certs, p.info...)
	}
	if next.clients != nil {
		next.Certs = append(next.Certs, next.clients.info...)
	}
	s.composeLogin(next)
	if s.tickets != nil {
		next.master = s.tickets.next
	}
	if s.ocsp != nil {
		next.fileResponse(s.ocsp.next)
	}
	next.Trust = next.trustDigest()
	next.indexNames()
	return next.withTicketKeys(day(now))
}
