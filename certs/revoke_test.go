package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// sessionsWithJunk are live sessions of one client, each with other CAs after the
// leaf that are named like the real one.
func (f *fixture) sessionsWithJunk(s *Store, client tls.Certificate, n int) []*tls.ConnectionState {
	f.t.Helper()
	var all []*tls.ConnectionState
	for range n {
		cs := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{parsed(f.t, client.Certificate[0])}}
		for _, raw := range junkCAs(f.t, subjectOf(f.t, f.ca), keysOfSize()["P-256"], 2) {
			cs.PeerCertificates = append(cs.PeerCertificates, parsed(f.t, raw))
		}
		f.must(s.Snapshot().verifyConnection(*cs))
		all = append(all, cs)
	}
	return all
}

func parsed(t testing.TB, raw []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// withoutKeys has the CAs of the bundle lose their keys, so that from here on any
// signature check fails.
func withoutKeys(s *Store) {
	for _, ca := range s.Snapshot().clients.certs {
		ca.PublicKey = nil
	}
}

const sessionsOfOne = 300

func TestSessionsOfARevokedLeafCostOneSignatureCheck(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.withCRL(f.revoking(f.ca))
	s := f.open()
	sessions := f.sessionsWithJunk(s, f.client, sessionsOfOne)
	f.write("ca.crl", f.revoking(f.ca, f.client))
	f.reload(s)
	for i, cs := range sessions {
		if _, err := s.Snapshot().Recheck(cs); !errors.Is(err, ErrClientRevoked) {
			t.Fatalf("session %d: got %v, want %v", i, err, ErrClientRevoked)
		}
		withoutKeys(s)
	}
	if n := len(s.Snapshot().clients.strays.m); n > 0 {
		t.Errorf("CA certificates were tried for %d revoked leaves, want none", n)
	}
}

func TestSessionsOfATrustedLeafCostNoSignatureCheck(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.withCRL(f.revoking(f.ca))
	s := f.open()
	sessions := f.sessionsWithJunk(s, f.client, sessionsOfOne)
	f.write("ca.crl", f.revoking(f.ca, f.clientOf(f.ca)))
	f.reload(s)
	if _, err := s.Snapshot().Recheck(sessions[0]); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Snapshot().clients.strays.m); n > 0 {
		t.Errorf("CA certificates were tried for %d trusted leaves, want none", n)
	}
	withoutKeys(s)
	for i, cs := range sessions {
		if _, err := s.Snapshot().Recheck(cs); err != nil {
			t.Fatalf("session %d would end: %v", i, err)
		}
	}
}

// The CA is replaced by another of its name: each session's junk may now be of
// that one, but only a few are tried.
func TestSessionsOfALostCACostFewSignatureChecks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	sessions := f.sessionsWithJunk(s, f.client, sessionsOfOne)
	f.write("ca.crt", newCA(t, "root").PEM())
	f.reload(s)
	for i, cs := range sessions {
		if _, err := s.Snapshot().Recheck(cs); !errors.Is(err, ErrClientUntrusted) {
			t.Fatalf("session %d: got %v, want %v", i, err, ErrClientUntrusted)
		}
	}
	b := s.Snapshot().clients
	if strays, _ := b.strays.get(b.read(sessions[0].PeerCertificates).leaf.sum); strays != maxLiveStrays {
		t.Errorf("%d CA certificates tried for sessions of one leaf, want %d", strays, maxLiveStrays)
	}
}

// The proxy ends sessions shortly before their leaf does, and judges them once more
// as it does so.
func TestSessionsOfAnEndingLeafCostNoSignatureCheck(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.withCRL(f.revoking(f.ca))
	var now atomic.Pointer[time.Time]
	set := func(to time.Time) { now.Store(&to) }
	set(time.Now())
	f.opts.clock = func() time.Time { return *now.Load() }
	s := f.open()
	sessions := f.sessionsWithJunk(s, f.client, sessionsOfOne)
	withoutKeys(s)
	for _, step := range []struct {
		name string
		at   time.Time
		want error
	}{
		{"at the leaf's end", f.client.Leaf.NotAfter, nil},
		{"after it", f.client.Leaf.NotAfter.Add(time.Nanosecond), ErrClientExpired},
		{"long after it", f.client.Leaf.NotAfter.Add(time.Hour), ErrClientExpired},
	} {
		set(step.at)
		for i, cs := range sessions {
			if _, err := s.Snapshot().Recheck(cs); !errors.Is(err, step.want) {
				t.Fatalf("%s, session %d: got %v, want %v", step.name, i, err, step.want)
			}
		}
	}
	if n := len(s.Snapshot().clients.verdicts.m); n != 1 {
		t.Errorf("%d outcomes remembered of one leaf, want 1", n)
	}
}

// The bundle's keys are good here, and each session's junk may be of its CA.
func TestCAsAreNotTriedForALeafThatHasEnded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	start := time.Now()
	var ahead atomic.Int64
	f.opts.clock = func() time.Time { return start.Add(time.Duration(ahead.Load())) }
	s := f.open()
	sessions := f.sessionsWithJunk(s, f.client, sessionsOfOne)
	ahead.Store(int64(f.client.Leaf.NotAfter.Add(time.Second).Sub(start)))
	for i, cs := range sessions {
		if _, err := s.Snapshot().Recheck(cs); !errors.Is(err, ErrClientExpired) {
			t.Fatalf("session %d: got %v, want %v", i, err, ErrClientExpired)
		}
	}
	if n := len(s.Snapshot().clients.strays.m); n > 0 {
		t.Errorf("CA certificates were tried for %d leaves, want none", n)
	}
}

// Other CAs use the same serials, and another may even use the same name.
func TestAListRevokesOnlyWhatItsSignerSigned(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	namesake, other := newCA(t, "root"), newCA(t, "other")
	f.write("ca.crt", slices.Concat(f.ca.PEM(), namesake.PEM(), other.PEM()))
	lists := func(by *pki.CA) []byte {
		return f.crl(by, pki.CRLOptions{Revoked: []*big.Int{f.client.Leaf.SerialNumber}})
	}
	none := func(cas ...*pki.CA) (text []byte) {
		for _, ca := range cas {
			text = append(text, f.revoking(ca)...)
		}
		return text
	}
	f.withCRL(none(f.ca, namesake, other))
	s := f.open()
	cs := f.wantAdmitted(s, f.client)
	for _, step := range []struct {
		name string
		crl  []byte
		want error
	}{
		{"another CA's list", slices.Concat(none(f.ca, namesake), lists(other)), nil},
		{"a namesake's list", slices.Concat(none(f.ca, other), lists(namesake)), nil},
		{"its own CA's list", slices.Concat(none(namesake, other), lists(f.ca)), ErrClientRevoked},
	} {
		f.write("ca.crl", step.crl)
		f.reload(s)
		if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, step.want) {
			t.Errorf("%s, a live session: got %v, want %v", step.name, err, step.want)
		}
		if _, err := f.admitted(s, f.as(f.client)); !errors.Is(err, step.want) {
			t.Errorf("%s, a handshake: got %v, want %v", step.name, err, step.want)
		}
	}
}

// An intermediate that clients send has a list of its own.
func TestAListOfASentIntermediateRevokesItsLeaf(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	client, other := f.clientOf(sub), f.clientOf(sub)
	f.withCRL(slices.Concat(f.revoking(f.ca), f.revoking(sub)))
	s := f.open()
	cs := f.wantAdmitted(s, client)
	f.write("ca.crl", slices.Concat(f.revoking(f.ca), f.revoking(sub, client)))
	f.reload(s)
	for range 2 {
		if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, errLeafRevoked) {
			t.Errorf("a live session: got %v, want %v", err, errLeafRevoked)
		}
		f.wantRefused(s, client, errLeafRevoked)
		f.wantAdmitted(s, other)
	}
}

func TestAConnectionHoldsItsCertificatesOnce(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		sub, err := f.ca.Intermediate("sub")
		f.must(err)
		s := f.open()
		client := f.clientOf(sub)
		client.Certificate = append(client.Certificate, junkCAs(t, subjectOf(t, f.ca), keysOfSize()["P-256"], 1)[0])
		config := f.as(client)
		config.MinVersion, config.MaxVersion = version, version
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		var sessions []tls.ConnectionState
		for _, resumed := range []bool{false, true, true} {
			cs, err := f.admitted(s, config)
			f.must(err)
			if cs.DidResume != resumed || len(cs.PeerCertificates) != 3 {
				t.Fatalf("resumed %v with %d certificates", cs.DidResume, len(cs.PeerCertificates))
			}
			_, err = s.Snapshot().Recheck(&cs)
			f.must(err)
			sessions = append(sessions, cs)
		}
		for _, cs := range sessions {
			for i, cert := range cs.PeerCertificates {
				switch first := sessions[0].PeerCertificates[i]; {
				case !slices.Equal(cert.Raw, client.Certificate[i]):
					t.Errorf("certificate %d is another one", i)
				case i < 2 && cert != first:
					t.Errorf("certificate %d is held twice", i)
				case i == 2 && len(cert.DNSNames) > 0:
					t.Error("the CA that no chain needs is held parsed")
				}
			}
		}
		clear(sessions)
		f.eventually("nothing is kept of certificates without a session", func() bool {
			runtime.GC()
			left := 0
			s.opts.shared.m.Range(func(any, any) bool { left++; return true })
			return left == 0
		})
	})
}

// A CA that the client sent and no chain needed may be needed when the bundle
// changes.
func TestALiveSessionMovesToAnotherRootByWhatItSent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	other := newCA(t, "other")
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	client := f.clientOf(sub)
	client.Certificate = append(client.Certificate, f.crossSigned(sub, other))
	s := f.open()
	cs := f.wantAdmitted(s, client)
	for range 2 { // proven anew, then remembered
		f.write("ca.crt", other.PEM())
		f.reload(s)
		if _, err := s.Snapshot().Recheck(&cs); err != nil {
			t.Errorf("below the other root: %v", err)
		}
		f.write("ca.crt", f.ca.PEM())
		f.reload(s)
		if _, err := s.Snapshot().Recheck(&cs); err != nil {
			t.Errorf("below its root: %v", err)
		}
	}
}

func TestATicketEndsWithItsChain(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		start := time.Now()
		var ahead atomic.Int64
		f.opts.clock = func() time.Time { return start.Add(time.Duration(ahead.Load())) }
		sub, err := f.ca.Intermediate("sub")
		f.must(err)
		s := f.open()
		addr := f.serve(s.TLSConfig())
		config := f.resumer(version)
		client := f.clientOf(sub)
		short := der(renewedUntil(f, sub, start.Add(time.Minute)))
		renewed := client.Certificate
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }
		client.Certificate = [][]byte{renewed[0], short}
		f.wantResumed(addr, config, false, "first")
		f.wantResumed(addr, config, true, "while the chain lasts")
		client.Certificate = renewed
		ahead.Store(int64(2 * time.Minute))
		f.wantResumed(addr, config, false, "after the intermediate's end")
		f.wantResumed(addr, config, true, "with the renewed chain")
	})
}
