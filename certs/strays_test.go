package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// straysTriedFor is how many CAs were tried in vain for live sessions of a leaf.
func straysTriedFor(s *Store, leaf []byte, t *testing.T) int {
	b := s.Snapshot().clients
	spent, _ := b.strays.get(b.read([]*x509.Certificate{parsed(t, leaf)}).leaf.sum)
	return spent
}

// A chain that ends before its leaf makes the client's session look for another one at
// each judgement, and a ticket is made after a judgement too. The same stray must not
// count each time.
func TestAStrayOfAnHonestClientCountsOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	client := f.clientOf(sub)
	short := der(renewedUntil(f, sub, time.Now().Add(time.Hour)))
	stray := junkCAs(t, subjectOf(t, f.ca), keysOfSize()["P-256"], 1)[0]
	client.Certificate = [][]byte{client.Certificate[0], short, stray}
	s := f.open()
	var cs tls.ConnectionState
	for range 2 * maxLiveStrays {
		config := f.as(client)
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1) // it gets a ticket
		cs, err = f.admitted(s, config)
		f.must(err)
	}
	if n := straysTriedFor(s, client.Certificate[0], t); n != 1 {
		t.Errorf("%d strays counted, want 1", n)
	}
	// A CA that is proven only now has its try.
	s.Snapshot().clients.proven = newBounded[[32]byte, struct{}](maxProven)
	if _, err := s.Snapshot().Recheck(&cs); err != nil {
		t.Errorf("a live session would end: %v", err)
	}
}

// An RSA key of the bundle's can have made no ECDSA signature: that is known for
// nothing, so such a CA certificate does not keep the next one from its try.
func TestACAWithAnotherKindOfSignatureIsNoStray(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	subject := subjectOf(t, f.ca)
	root := junkCAs(t, subject, keysOfSize()["RSA 2048"], 1)[0]
	f.write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}))
	renewed := junkCAs(t, subject, keysOfSize()["RSA 2048"], 1, "renewed")[0]
	client := stranger(t, subject, [][]byte{junkCAs(t, subject, keysOfSize()["P-256"], 1)[0], renewed}, keysOfSize()["RSA 2048"])
	s := f.open()
	b := s.Snapshot().clients
	c := b.read([]*x509.Certificate{parsed(t, client.Certificate[0]), parsed(t, client.Certificate[1]), parsed(t, client.Certificate[2])})
	b.prove(c, true)
	if c.untried != "" || len(c.known) != 1 {
		t.Errorf("%d CAs proven, want the renewed one; %s", len(c.known), c.untried)
	}
	if n := straysTriedFor(s, client.Certificate[0], t); n != 0 {
		t.Errorf("%d strays counted, want none", n)
	}
}

// Nobody but the owner of a leaf can spend what its sessions may try, nor fill what is
// remembered of that.
func TestAHandshakeSpendsNothingOfLiveSessions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	f.sessionsWithJunk(s, f.client, 3*maxLiveStrays)
	b := s.Snapshot().clients
	if len(b.strays.m) != 0 || len(b.failed.m) != 0 {
		t.Errorf("%d leaves with strays and %d failed checks, want none", len(b.strays.m), len(b.failed.m))
	}
}

// What a live session is refused for is the same text at each judgement, and says
// which limit was met.
func TestARememberedRefusalSaysAsMuchAsTheFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(f *fixture, sub *pki.CA, ahead *atomic.Int64)
		want   error
		says   string
	}{
		"expired": {func(f *fixture, _ *pki.CA, ahead *atomic.Int64) { ahead.Store(int64(10 * 365 * 24 * time.Hour)) }, ErrClientExpired, "is after"},
		"untrusted": {func(f *fixture, _ *pki.CA, _ *atomic.Int64) {
			f.write("ca.crt", newCA(f.t, "another").PEM())
		}, ErrClientUntrusted, "certificate signed by unknown authority"},
		"not for clients": {func(f *fixture, sub *pki.CA, _ *atomic.Int64) {
			f.write("ca.crt", forServersOnly(f, sub))
		}, ErrClientInvalid, "incompatible key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			start := time.Now()
			var ahead atomic.Int64
			f.opts.clock = func() time.Time { return start.Add(time.Duration(ahead.Load())) }
			sub, err := f.ca.Intermediate("sub")
			f.must(err)
			client := f.clientOf(sub)
			s := f.open()
			cs := f.wantAdmitted(s, client)
			c.change(f, sub, &ahead)
			_, _ = s.Reload()
			_, first := s.Snapshot().Recheck(&cs)
			_, second := s.Snapshot().Recheck(&cs)
			if !errors.Is(first, c.want) || !strings.Contains(first.Error(), c.says) {
				t.Fatalf("got %v, want %v that says %q", first, c.want, c.says)
			}
			if !errors.Is(second, c.want) || second.Error() != first.Error() {
				t.Errorf("first %v\nthen  %v", first, second)
			}
		})
	}
}

// forServersOnly is a CA's certificate with its key, which may not sign clients.
func forServersOnly(f *fixture, ca *pki.CA) []byte {
	f.t.Helper()
	return reissued(f, ca, func(template *x509.Certificate) {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

// The names that an error quotes are the client's, of any length.
func TestARememberedRefusalHoldsFewOfAClientsBytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var labels []string
	for range 60 {
		labels = append(labels, strings.Repeat("a", 60))
	}
	client := f.named(pki.Leaf{CN: "client", DNS: []string{strings.Join(labels, ".")}})
	s := f.open()
	cs := f.wantAdmitted(s, client)
	f.write("ca.crt", reissued(f, f.ca, func(template *x509.Certificate) {
		template.PermittedDNSDomains = []string{"apps.internal"}
	}))
	f.reload(s)
	if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, ErrClientInvalid) || len(err.Error()) < 1000 {
		t.Fatalf("got %v, want a long %v", err, ErrClientInvalid)
	}
	for _, v := range s.Snapshot().clients.verdicts.m {
		if len(v.err.Error()) > len(ErrClientInvalid.Error())+maxDetail {
			t.Errorf("%d bytes are remembered", len(v.err.Error()))
		}
	}
}

// After so many strays of one leaf nothing more is tried, and the refusal says so.
func TestALiveSessionThatIsNotTriedSaysWhy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	sessions := f.sessionsWithJunk(s, f.client, maxLiveStrays+1)
	f.write("ca.crt", newCA(t, "root").PEM())
	f.reload(s)
	for i, cs := range sessions {
		_, err := s.Snapshot().Recheck(cs)
		if want := "sessions of this certificate have sent 8 CA certificates"; strings.Contains(err.Error(), want) != (i == maxLiveStrays) {
			t.Errorf("session %d: %v", i, err)
		}
	}
}

// CAs of the bundle that cannot be in the leaf's chain make no other chains: each
// client may send them in other numbers and another order.
func TestCAsThatNoChainNeedsCostNoSignatureCheck(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bundle, others := f.ca.PEM(), [][]byte(nil)
	for _, name := range []string{"one", "two", "three"} {
		other := newCA(t, name)
		bundle, others = append(bundle, other.PEM()...), append(others, der(other.PEM()))
	}
	f.write("ca.crt", bundle)
	s := f.open()
	var sessions []*tls.ConnectionState
	for _, order := range [][]int{{}, {0}, {1}, {0, 1}, {1, 0}, {2, 1, 0}, {0, 1, 2}} {
		client := f.client
		client.Certificate = client.Certificate[:1:1]
		for _, i := range order {
			client.Certificate = append(client.Certificate, others[i])
		}
		cs, err := f.judged(s, client)
		f.must(err)
		sessions = append(sessions, cs)
	}
	f.write("ca.crt", slices.Concat(bundle, newCA(t, "four").PEM()))
	f.reload(s)
	for i, cs := range sessions {
		if _, err := s.Snapshot().Recheck(cs); err != nil {
			t.Errorf("session %d would end: %v", i, err)
		}
		withoutKeys(s)
	}
}

// A list of a new CA of the same name may have the serial of a leaf that the new CA
// did not sign: all sessions of the leaf cost one check.
func TestALeafThatANamesakesListNamesIsCheckedOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.withCRL(f.revoking(f.ca))
	s := f.open()
	sessions := f.sessionsWithJunk(s, f.client, 3)
	namesake := newCA(t, "root")
	f.write("ca.crt", namesake.PEM())
	f.write("ca.crl", f.revoking(namesake, f.client))
	f.reload(s)
	real := parsed(t, der(f.ca.PEM())).PublicKey
	for i, cs := range sessions {
		if _, err := s.Snapshot().Recheck(cs); !errors.Is(err, ErrClientUntrusted) {
			t.Errorf("session %d: got %v, want %v", i, err, ErrClientUntrusted)
		}
		s.Snapshot().clients.certs[0].PublicKey = real // a check would succeed from here on
	}
	if n := len(s.Snapshot().clients.verdicts.m); n > 0 {
		t.Errorf("chains were built for %d leaves that nobody trusted signed, want none", n)
	}
}

// One try is enough for an honest client: the CA whose identifier fits goes first.
func TestTheCAWhoseIdentifierFitsIsTriedFirst(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	client := f.clientOf(sub)
	stray := junkCAs(t, subjectOf(t, f.ca), keysOfSize()["P-256"], 1)[0]
	client.Certificate = [][]byte{client.Certificate[0], stray, der(sub.PEM())}
	f.wantAdmitted(f.open(), client)
}

// That no chain is good is found out once for all sessions of a leaf.
func TestSessionsOfALeafWhoseCAIsLostCostOneVerification(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	cs := f.wantAdmitted(s, f.client)
	f.write("ca.crt", newCA(t, "root").PEM())
	f.reload(s)
	real := parsed(t, der(f.ca.PEM())).PublicKey
	for range 3 {
		if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, ErrClientUntrusted) {
			t.Errorf("got %v, want %v", err, ErrClientUntrusted)
		}
		s.Snapshot().clients.certs[0].PublicKey = real // a verification would succeed from here on
	}
}

// Two certificates of one CA make the same chains in either order.
func TestTheOrderOfCAsCostsNoSignatureCheck(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	client, again := f.clientOf(sub), der(renewed(f, sub))
	s := f.open()
	var sessions []*tls.ConnectionState
	for _, cas := range [][][]byte{{der(sub.PEM()), again}, {again, der(sub.PEM())}} {
		client.Certificate = append(client.Certificate[:1:1], cas...)
		cs, err := f.judged(s, client)
		f.must(err)
		sessions = append(sessions, cs)
	}
	f.write("ca.crt", slices.Concat(f.ca.PEM(), newCA(t, "more").PEM()))
	f.reload(s)
	for i, cs := range sessions {
		if _, err := s.Snapshot().Recheck(cs); err != nil {
			t.Errorf("session %d would end: %v", i, err)
		}
		withoutKeys(s)
	}
}
