package certs

import (
	"crypto/tls"
	"errors"
	"slices"
	"testing"

	"dragontls/certs/pki"
)

func TestBoundedHoldsNoMoreThanItsLimit(t *testing.T) {
	t.Parallel()
	b := newBounded[int, int](3)
	for k := range 10 {
		b.put(k, k)
		if v, ok := b.get(k); !ok || v != k {
			t.Errorf("the newest entry is lost: got %d, %v", v, ok)
		}
		b.put(k, k+1) // takes nobody's place
		b.update(k, func(v int) int { return v + 1 })
		if v, _ := b.get(k); v != k+2 {
			t.Errorf("got %d, want %d", v, k+2)
		}
		if want := min(k+1, 3); len(b.m) != want {
			t.Errorf("%d entries after %d keys, want %d", len(b.m), k+1, want)
		}
	}
	for k := range 10 {
		b.update(k+10, func(v int) int { return v + 1 })
	}
	if len(b.m) != 3 {
		t.Errorf("update: %d entries, want 3", len(b.m))
	}
}

// namesakes are CAs below sub with one name and different keys, and a client of
// each.
func (f *fixture) namesakes(sub *pki.CA, name string, n int) (cas []*pki.CA, clients []tls.Certificate) {
	f.t.Helper()
	for range n {
		ca, err := sub.Intermediate(name)
		f.must(err)
		cas, clients = append(cas, ca), append(clients, f.clientOf(ca))
	}
	return cas, clients
}

// judged judges what a client sends as in a handshake.
func (f *fixture) judged(s *Store, client tls.Certificate) (*tls.ConnectionState, error) {
	f.t.Helper()
	cs := &tls.ConnectionState{}
	for _, raw := range client.Certificate {
		cs.PeerCertificates = append(cs.PeerCertificates, parsed(f.t, raw))
	}
	return cs, s.Snapshot().verifyConnection(*cs)
}

// Who has a CA of its own can name others like the issuer of a CRL, with any
// number of keys. That fills no memory, and the lists count for whom they did.
func TestKeysThatASubordinateCAMintsNeitherFillMemoryNorHideAList(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	minting, err := f.ca.Intermediate("minting")
	f.must(err)
	honest, err := f.ca.Intermediate("honest") // clients send it
	f.must(err)
	revoked := []tls.Certificate{f.clientOf(f.ca), f.clientOf(honest)}
	trusted := []tls.Certificate{f.client, f.clientOf(honest)}
	f.opts.CRLWarn = true // what is minted has no list
	f.withCRL(slices.Concat(f.revoking(f.ca, revoked[0]), f.revoking(honest, revoked[1])))
	s := f.open()
	for _, name := range []string{"root", "honest"} {
		_, clients := f.namesakes(minting, name, 2*maxSigners)
		for _, client := range clients {
			_, err := f.judged(s, client)
			f.must(err)
		}
		ca := map[string]*pki.CA{"root": f.ca, "honest": honest}[name]
		for _, l := range s.Snapshot().revocation.lists[string(subjectOf(t, ca))] {
			switch {
			case name == "root" && l.signers != nil:
				t.Error("a list whose signer is in the bundle is checked with other keys")
			case name == "honest" && len(l.signers.m) != maxSigners:
				t.Errorf("%d keys remembered, want %d", len(l.signers.m), maxSigners)
			}
		}
	}
	for i := range revoked {
		if _, err := f.judged(s, revoked[i]); !errors.Is(err, ErrClientRevoked) {
			t.Errorf("client %d: got %v, want %v", i, err, ErrClientRevoked)
		}
		if _, err := f.judged(s, trusted[i]); err != nil {
			t.Errorf("client %d: refused: %v", i, err)
		}
	}
}

// With room for three, all that is remembered of clients is forgotten again and
// again: it costs signature checks, and changes no decision.
func TestForgottenOutcomesChangeNoDecision(t *testing.T) {
	t.Parallel()
	const room, trusted, all = 3, 12, 24
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	cas, clients := f.namesakes(sub, "same", all)
	f.opts.CRLWarn = true
	f.withCRL(f.revoking(f.ca))
	s := f.open()
	b := s.Snapshot().clients
	b.proven.max, b.verdicts.max, b.strays.max, b.signed.max = room, room, room, room
	var live []*tls.ConnectionState
	for _, client := range clients {
		cs, err := f.judged(s, client)
		f.must(err)
		live = append(live, cs)
	}
	lists := f.revoking(f.ca)
	for i := trusted; i < all; i++ {
		lists = append(lists, f.revoking(cas[i], clients[i])...)
	}
	f.write("ca.crl", lists)
	f.reload(s)
	if s.Snapshot().clients != b {
		t.Fatal("what was found out about clients did not outlive the reload")
	}
	for round := range 3 {
		for i, cs := range live {
			want := error(nil)
			if i >= trusted {
				want = ErrClientRevoked
			}
			if _, err := s.Snapshot().Recheck(cs); !errors.Is(err, want) {
				t.Errorf("round %d, live session %d: got %v, want %v", round, i, err, want)
			}
			if _, err := f.judged(s, clients[i]); !errors.Is(err, want) {
				t.Errorf("round %d, client %d: got %v, want %v", round, i, err, want)
			}
		}
	}
	for name, n := range map[string]int{
		"proven": len(b.proven.m), "verdicts": len(b.verdicts.m), "strays": len(b.strays.m), "signed": len(b.signed.m),
	} {
		if n > room {
			t.Errorf("%s holds %d entries, want at most %d", name, n, room)
		}
	}
}
