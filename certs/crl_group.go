package certs

import (
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"time"
)

// crlGroup is what a handshake asks when it looks for a CRL: the lists with one
// signer that cover the same certificates.
type crlGroup struct {
	ca    *x509.Certificate // nil: no CA of the bundle signed the lists
	name  string            // of the signer, DER
	lists []*crl            // none: the CA has no list
}

// groups has one for each CA of the bundle, in its order, then one for each name
// whose lists no CA of the bundle signed. A CA that is there twice, as a root
// and cross-signed, is one.
func (r *revocation) groups(clients *bundle) []crlGroup {
	var all []crlGroup
	at := make(map[string]int) // by name and key
	proven := make(map[*crl]bool)
	for _, ca := range clients.certs {
		key := string(ca.RawSubject) + string(ca.RawSubjectPublicKeyInfo)
		i, known := at[key]
		if !known {
			i = len(all)
			at[key] = i
			all = append(all, crlGroup{ca: ca, name: string(ca.RawSubject)})
		}
		r.of(ca, func(l *crl) bool {
			if !proven[l] {
				all[i].lists = append(all[i].lists, l)
			}
			proven[l] = true
			return true
		})
	}
	for _, name := range slices.Sorted(maps.Keys(r.lists)) {
		rest := slices.DeleteFunc(slices.Clone(r.lists[name]), func(l *crl) bool { return proven[l] })
		if len(rest) > 0 {
			all = append(all, crlGroup{name: name, lists: rest})
		}
	}
	var split []crlGroup
	for _, g := range all {
		split = append(split, g.byPartition()...)
	}
	return split
}

// byPartition is g itself where it has no partitions.
func (g crlGroup) byPartition() []crlGroup {
	byPoints := make(map[string][]*crl)
	for _, l := range g.lists {
		points := strings.Join(l.points, "\n")
		byPoints[points] = append(byPoints[points], l)
	}
	if len(byPoints) < 2 {
		return []crlGroup{g}
	}
	var all []crlGroup
	for _, points := range slices.Sorted(maps.Keys(byPoints)) {
		all = append(all, crlGroup{ca: g.ca, name: g.name, lists: byPoints[points]})
	}
	return all
}

// current is the list that holds longest of those that have begun, since one in
// date is enough; where none has begun, the first to begin. There must be one.
func (g *crlGroup) current(now time.Time) *crl {
	best := g.lists[0]
	for _, l := range g.lists[1:] {
		begun, bestBegun := l.begun(now), best.begun(now)
		switch {
		case begun != bestBegun:
			if begun {
				best = l
			}
		case begun && l.info.NextUpdate.After(best.info.NextUpdate),
			!begun && l.info.ThisUpdate.Before(best.info.ThisUpdate):
			best = l
		}
	}
	return best
}

// CurrentCRLs are the CRLs whose dates matter now: of the lists with one signer
// and partition, the one that holds longest. An older list beside it changes
// nothing but who is revoked.
func (s *Snapshot) CurrentCRLs(now time.Time) []CRL {
	if s.revocation == nil {
		return s.CRLs
	}
	current := make(map[CRL]bool)
	for _, g := range s.revocation.groups(s.clients) {
		if len(g.lists) > 0 {
			current[g.current(now).info] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(s.CRLs), func(c CRL) bool { return !current[c] })
}
