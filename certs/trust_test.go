package certs

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"dragontls/certs/pki"
)

func TestRecheckJudgesWhatAHandshakeWould(t *testing.T) {
	type world struct {
		*fixture
		sub    *pki.CA
		client tls.Certificate // of sub, sent without it
	}
	bundle := func(w *world, parts ...[]byte) { w.write("ca.crt", slices.Concat(parts...)) }
	for name, c := range map[string]struct {
		change func(w *world)
		want   error
	}{
		"a CA more":           {func(w *world) { bundle(w, w.ca.PEM(), w.sub.PEM(), newCA(w.t, "more").PEM()) }, nil},
		"the root gone":       {func(w *world) { bundle(w, w.sub.PEM()) }, nil},
		"intermediate gone":   {func(w *world) { bundle(w, w.ca.PEM()) }, ErrClientUntrusted},
		"all replaced":        {func(w *world) { bundle(w, newCA(w.t, "new").PEM()) }, ErrClientUntrusted},
		"intermediate anew":   {func(w *world) { bundle(w, w.ca.PEM(), renewed(w.fixture, w.sub)) }, nil},
		"another of its name": {func(w *world) { bundle(w, w.ca.PEM(), newCA(w.t, "sub").PEM()) }, ErrClientUntrusted},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{fixture: newFixture(t)}
			var err error
			w.sub, err = w.ca.Intermediate("sub")
			w.must(err)
			w.client = w.clientOf(w.sub)
			w.client.Certificate = w.client.Certificate[:1]
			bundle(w, w.ca.PEM(), w.sub.PEM())
			s := w.open()
			cs := w.wantAdmitted(s, w.client)
			c.change(w)
			w.reload(s)
			_, err = s.Snapshot().Recheck(&cs)
			if !errors.Is(err, c.want) {
				t.Errorf("recheck: got %v, want %v", err, c.want)
			}
			_, err = w.admitted(s, w.as(w.client))
			if (err == nil) != (c.want == nil) {
				t.Errorf("a handshake says %v", err)
			}
		})
	}
}

func TestRecheckKeepsWhomACAWithTheSameKeySigned(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	cs := f.wantAdmitted(s, f.client)
	f.write("ca.crt", renewed(f, f.ca))
	f.reload(s)
	p, err := s.Snapshot().Recheck(&cs)
	f.must(err)
	if want := s.Snapshot().Certs; p.Anchor != want[len(want)-1].Fingerprint {
		t.Error("the anchor is not the renewed CA")
	}
	f.wantAdmitted(s, f.client)
}

func TestRecheckCountsEntriesOnly(t *testing.T) {
	f := newFixture(t)
	hours := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Hour) }
	f.withCRL(f.crl(f.ca, pki.CRLOptions{ThisUpdate: hours(-9)}))
	s := f.open()
	cs := f.wantAdmitted(s, f.client)
	for _, step := range []struct {
		crl  []byte
		want error
	}{
		{f.crl(f.ca, pki.CRLOptions{ThisUpdate: hours(-8), NextUpdate: hours(-1)}), nil},
		{f.revoking(f.ca, f.clientOf(f.ca)), nil},
		{f.revoking(f.ca, f.client), ErrClientRevoked},
	} {
		f.write("ca.crl", step.crl)
		f.reload(s)
		if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, step.want) {
			t.Errorf("got %v, want %v", err, step.want)
		}
	}
}

func TestPeerEndsWithTheFirstOfItsChain(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	cs := f.wantAdmitted(s, f.client)
	p, err := s.Snapshot().Recheck(&cs)
	f.must(err)
	if !p.NotAfter.Equal(f.client.Leaf.NotAfter) || !p.NotBefore.Equal(f.client.Leaf.NotBefore) {
		t.Errorf("%v to %v, want the leaf's", p.NotBefore, p.NotAfter)
	}
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	f.write("ca.crt", renewedUntil(f, f.ca, soon))
	f.reload(s)
	if p, err = s.Snapshot().Recheck(&cs); err != nil || !p.NotAfter.Equal(soon) {
		t.Errorf("ends %v (%v), want with its CA %v", p.NotAfter, err, soon)
	}
	if p, err = s.Snapshot().Recheck(&tls.ConnectionState{}); err != nil || p != (Peer{}) {
		t.Errorf("without a certificate: %v, %v", p, err)
	}
}

func TestReplicasWithOneTicketMasterAgreeOnWhoIsRevoked(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		f.write("ticket", []byte(hex.EncodeToString(bytes.Repeat([]byte("0123456789abcdef"), 2))))
		f.opts.TicketKeysFile = f.path("ticket")
		f.withCRL(f.revoking(f.ca))
		one, two := f.open(), f.open()
		client := f.resumer(version)
		here, there := f.serve(one.TLSConfig()), f.serve(two.TLSConfig())
		f.wantResumed(here, client, false, "first")
		f.wantResumed(there, client, true, "at the other")
		f.write("ca.crl", f.revoking(f.ca, f.clientOf(f.ca))) // somebody else
		f.reload(one)
		f.wantResumed(there, client, true, "where trust is as before")
		f.wantResumed(here, client, false, "where it changed")
		f.reload(two)
		f.wantResumed(there, client, true, "where it changed too")
	})
}

// renewed is a CA's certificate anew, with its key.
func renewed(f *fixture, ca *pki.CA) []byte {
	return renewedUntil(f, ca, time.Now().Add(24*365*time.Hour))
}

func renewedUntil(f *fixture, ca *pki.CA, end time.Time) []byte {
	f.t.Helper()
	return reissued(f, ca, func(template *x509.Certificate) { template.NotAfter = end })
}

// reissued is a CA's certificate anew, with its key and what change makes of it.
func reissued(f *fixture, ca *pki.CA, change func(*x509.Certificate)) []byte {
	f.t.Helper()
	old, err := x509.ParseCertificate(der(ca.PEM()))
	f.must(err)
	signer := f.ca
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: old.Subject.CommonName},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * 365 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: old.KeyUsage, SubjectKeyId: old.SubjectKeyId,
	}
	change(template)
	parent, err := x509.ParseCertificate(der(signer.PEM()))
	f.must(err)
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, old.PublicKey, signer.Signer())
	f.must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// The renewed CA lies beside the old one, which ends soon: nobody ends with the old one.
func TestPeerEndsWithTheBestOfItsChains(t *testing.T) {
	f := newFixture(t)
	old := renewedUntil(f, f.ca, time.Now().Add(time.Hour))
	f.write("ca.crt", old)
	s := f.open()
	before := f.wantAdmitted(s, f.client)
	f.write("ca.crt", slices.Concat(old, renewed(f, f.ca)))
	f.reload(s)
	after := f.wantAdmitted(s, f.client)
	for name, cs := range map[string]*tls.ConnectionState{"live": &before, "new": &after} {
		p, err := s.Snapshot().Recheck(cs)
		f.must(err)
		if !p.NotAfter.Equal(f.client.Leaf.NotAfter) {
			t.Errorf("the %s session ends %v, want with its leaf %v", name, p.NotAfter, f.client.Leaf.NotAfter)
		}
	}
}

// An intermediate is issued anew with its key, and its old certificate revoked as superseded.
func TestRecheckKeepsClientsOfAReissuedIntermediate(t *testing.T) {
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	client := f.clientOf(sub)
	f.withCRL(slices.Concat(f.revoking(f.ca), f.revoking(sub)))
	s := f.open()
	cs := f.wantAdmitted(s, client)
	f.write("ca.crt", slices.Concat(f.ca.PEM(), renewed(f, sub)))
	f.write("ca.crl", slices.Concat(f.crl(f.ca, pki.CRLOptions{Revoked: []*big.Int{serialOf(sub)}}), f.revoking(sub)))
	f.reload(s)
	if _, err := s.Snapshot().Recheck(&cs); err != nil {
		t.Errorf("a live session would end: %v", err)
	}
	f.wantAdmitted(s, client)
	f.write("ca.crl", slices.Concat(f.crl(f.ca, pki.CRLOptions{Revoked: []*big.Int{serialOf(sub)}}), f.revoking(sub, client)))
	f.reload(s)
	if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, ErrClientRevoked) {
		t.Errorf("revoked itself: got %v", err)
	}
}

func TestAFaultThatCountsDownIsToldOnce(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.opts.clock = func() time.Time { return now }
	s := f.open()
	f.writePair("server", f.issue(f.ca, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true, NotBefore: now.Add(20 * time.Minute)}))
	for range 3 {
		_, _ = s.files.Reload(false)
		now = now.Add(time.Second) // a text with seconds in it would change
	}
	if n := s.Stats().ReloadsFailed[ReasonNotYetValid]; n != 1 || f.log.count(refusedMessage) != 1 {
		t.Errorf("%d counted, %d logged, want 1", n, f.log.count(refusedMessage))
	}
}
