package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
)

func (f *fixture) crl(ca *pki.CA, o pki.CRLOptions) []byte {
	f.t.Helper()
	text, err := ca.CRL(o)
	f.must(err)
	return text
}

// revoking is a list of ca with the serials of these clients.
func (f *fixture) revoking(ca *pki.CA, clients ...tls.Certificate) []byte {
	f.t.Helper()
	var o pki.CRLOptions
	for _, c := range clients {
		o.Revoked = append(o.Revoked, c.Leaf.SerialNumber)
	}
	return f.crl(ca, o)
}

func (f *fixture) withCRL(text []byte) {
	f.t.Helper()
	f.opts.CRLFile = f.path("ca.crl")
	f.write("ca.crl", text)
}

// admitted shakes hands for real and returns what the server said of it.
func (f *fixture) admitted(s *Store, client *tls.Config) (tls.ConnectionState, error) {
	f.t.Helper()
	config := s.TLSConfig()
	type outcome struct {
		cs  tls.ConnectionState
		err error
	}
	got := make(chan outcome, 1)
	addr := f.serveOnce(func(conn *tls.Conn) {
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("k"))
		}
		got <- outcome{conn.ConnectionState(), err}
	}, config)
	_, err := dial(addr, client)
	o := <-got
	if (err == nil) != (o.err == nil) {
		f.t.Errorf("client: %v, server: %v", err, o.err)
	}
	return o.cs, o.err
}

func (f *fixture) as(client tls.Certificate) *tls.Config {
	c := f.clientConfig()
	c.Certificates = []tls.Certificate{client}
	return c
}

func (f *fixture) wantRefused(s *Store, client tls.Certificate, want error) {
	f.t.Helper()
	if _, err := f.admitted(s, f.as(client)); !errors.Is(err, want) {
		f.t.Errorf("got %v, want %v", err, want)
	}
}

func (f *fixture) wantAdmitted(s *Store, client tls.Certificate) tls.ConnectionState {
	f.t.Helper()
	cs, err := f.admitted(s, f.as(client))
	if err != nil {
		f.t.Errorf("refused: %v", err)
	}
	return cs
}

func (f *fixture) reload(s *Store) {
	f.t.Helper()
	if changed, err := s.Reload(); !changed || err != nil {
		f.t.Fatalf("changed %v: %v", changed, err)
	}
}

func TestRevokedClientIsRefusedInFullAndResumedHandshakes(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		f := newFixture(t)
		other := f.clientOf(f.ca)
		f.withCRL(f.revoking(f.ca))
		s := f.open()
		f.watch(s, time.Hour)
		addr := f.serve(s.TLSConfig())
		good, bad := f.resumer(version), f.resumer(version)
		good.Certificates = []tls.Certificate{other}
		for range 2 {
			f.dial(addr, good)
			f.dial(addr, bad)
		}
		if !f.dial(addr, bad).DidResume {
			t.Fatal("no resumption to lose")
		}
		f.rename("ca.crl", f.revoking(f.ca, f.client))
		f.eventually("the list is in use", func() bool { return s.Snapshot().CRLs[0].Entries == 1 })
		if _, err := dial(addr, bad); err == nil {
			t.Error("a ticket let the revoked client in")
		}
		f.wantRefused(s, f.client, ErrClientRevoked)
		f.dial(addr, good)
		f.wantAdmitted(s, other)
	})
}

func TestNewHandshakesNeedACRLInDate(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		crl  func(f *fixture) []byte
		want error
	}{
		"in date":       {func(f *fixture) []byte { return f.revoking(f.ca) }, nil},
		"of another CA": {func(f *fixture) []byte { return f.revoking(newCA(f.t, "another")) }, ErrNoCRL},
		"expired": {func(f *fixture) []byte {
			return f.crl(f.ca, pki.CRLOptions{ThisUpdate: now.Add(-48 * time.Hour), NextUpdate: now.Add(-time.Hour)})
		}, ErrCRLExpired},
		"of a CA whose clock is ahead": {func(f *fixture) []byte { return f.crl(f.ca, pki.CRLOptions{ThisUpdate: now.Add(3 * time.Minute)}) }, nil},
		"of tomorrow": {func(f *fixture) []byte {
			return f.crl(f.ca, pki.CRLOptions{ThisUpdate: now.Add(24 * time.Hour), NextUpdate: now.Add(48 * time.Hour)})
		}, ErrCRLEarly},
		"expired beside one in date": {func(f *fixture) []byte {
			return append(f.crl(f.ca, pki.CRLOptions{ThisUpdate: now.Add(-48 * time.Hour), NextUpdate: now.Add(-time.Hour)}), f.revoking(f.ca)...)
		}, nil},
		"expired, with the client": {func(f *fixture) []byte {
			return f.crl(f.ca, pki.CRLOptions{
				Revoked: []*big.Int{f.client.Leaf.SerialNumber}, ThisUpdate: now.Add(-48 * time.Hour), NextUpdate: now.Add(-time.Hour),
			})
		}, ErrClientRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			judged := func(f *fixture, s *Store, when string) {
				t.Helper()
				if _, err := f.admitted(s, f.clientConfig()); !errors.Is(err, c.want) {
					t.Errorf("%s: got %v, want %v", when, err, c.want)
				}
			}
			f := newFixture(t)
			f.withCRL(f.revoking(newCA(t, "yet another")))
			s := f.open()
			f.write("ca.crl", c.crl(f))
			f.reload(s)
			judged(f, s, "after a reload")
			judged(f, f.open(), "after a start")
			f.opts.CRLWarn = true
			if c.want == ErrClientRevoked {
				f.wantRefused(f.open(), f.client, ErrClientRevoked)
			} else {
				f.wantAdmitted(f.open(), f.client)
			}
		})
	}
}

func TestACRLThatAgesRefusesNewHandshakes(t *testing.T) {
	f := newFixture(t)
	var ahead atomic.Int64 // nanoseconds
	f.opts.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	f.withCRL(f.crl(f.ca, pki.CRLOptions{NextUpdate: time.Now().Add(time.Hour)}))
	s := f.open()
	cs := f.wantAdmitted(s, f.client)
	ahead.Store(int64(2 * time.Hour))
	f.wantRefused(s, f.client, ErrCRLExpired)
	if _, err := s.Snapshot().Recheck(&cs); err != nil {
		t.Errorf("a live session would end: %v", err)
	}
}

func TestBadCRLKeepsTheLastGood(t *testing.T) {
	for name, c := range map[string]struct {
		bad    func(f *fixture, good []byte) []byte
		reason string
	}{
		"empty":            {func(*fixture, []byte) []byte { return nil }, ReasonParse},
		"half PEM":         {func(_ *fixture, good []byte) []byte { return good[:len(good)/2] }, ReasonParse},
		"one and a half":   {func(_ *fixture, good []byte) []byte { return append(good, good[:len(good)/2]...) }, ReasonParse},
		"half DER":         {func(_ *fixture, good []byte) []byte { return der(good)[:100] }, ReasonParse},
		"a certificate":    {func(f *fixture, _ []byte) []byte { return f.ca.PEM() }, ReasonParse},
		"damaged":          {func(_ *fixture, good []byte) []byte { return flip(good, -1) }, ReasonCRL},
		"damaged entry":    {func(_ *fixture, good []byte) []byte { return flip(good, 120) }, ReasonCRL},
		"another's, named": {func(f *fixture, _ []byte) []byte { return f.forged(f.ca, "root") }, ReasonCRL},
		"a delta":          {func(f *fixture, _ []byte) []byte { return f.extended(oidDelta, true, []byte{2, 1, 1}) }, ReasonCRL},
		"only CAs": {func(f *fixture, _ []byte) []byte {
			return f.extended(oidPoint, true, []byte{0x30, 3, 0x82, 1, 0xff})
		}, ReasonCRL},
		"indirect": {func(f *fixture, _ []byte) []byte {
			return f.extended(oidPoint, true, []byte{0x30, 3, 0x84, 1, 0xff})
		}, ReasonCRL},
		"unknown and critical": {func(f *fixture, _ []byte) []byte { return f.extended(oidUnknown, true, []byte{5, 0}) }, ReasonCRL},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			good := f.revoking(f.ca, f.client)
			f.withCRL(good)
			s := f.open()
			f.write("ca.crl", c.bad(f, slices.Clone(good)))
			if _, err := s.Reload(); err == nil {
				t.Fatal("taken into use")
			}
			if n := s.Stats().ReloadsFailed[c.reason]; n != 1 {
				t.Errorf("failed reloads: %v, want 1 for %q", s.Stats().ReloadsFailed, c.reason)
			}
			f.wantRefused(s, f.client, ErrClientRevoked)
			f.wantAdmitted(s, f.clientOf(f.ca))
			if _, err := Open(f.opts); err == nil {
				t.Error("a start takes it")
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		f := newFixture(t)
		f.withCRL(f.revoking(f.ca, f.client))
		s := f.open()
		f.must(os.Remove(f.path("ca.crl")))
		if _, err := s.Reload(); err == nil {
			t.Fatal("no fault")
		}
		f.wantRefused(s, f.client, ErrClientRevoked)
	})
}

func TestFormsOfACRLFile(t *testing.T) {
	f := newFixture(t)
	two := newCA(t, "two")
	f.write("ca.crt", slices.Concat(f.ca.PEM(), two.PEM()))
	a, b := f.revoking(f.ca, f.client), f.revoking(two)
	other := f.clientOf(two)
	for name, text := range map[string][]byte{
		"PEM":                      slices.Concat(a, b),
		"PEM with other blocks":    slices.Concat(f.ca.PEM(), a, []byte("# a comment\n"), b),
		"DER in a row":             slices.Concat(der(a), der(b)),
		"harmless extension":       slices.Concat(a, b, f.extended(oidUnknown, false, []byte{5, 0})),
		"user certificates only":   slices.Concat(a, b, f.extended(oidPoint, true, []byte{0x30, 3, 0x81, 1, 0xff})),
		"negative serial":          slices.Concat(a, b, f.crl(two, pki.CRLOptions{Revoked: []*big.Int{new(big.Int).Neg(other.Leaf.SerialNumber)}})),
		"beside that of a partner": slices.Concat(a, f.revoking(newCA(t, "partner")), b),
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.withCRL(text)
			s := f.open()
			f.wantRefused(s, f.client, ErrClientRevoked)
			f.wantAdmitted(s, other)
		})
	}
}

func TestCRLOfAnIntermediateThatClientsSend(t *testing.T) {
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	good, bad := f.clientOf(sub), f.clientOf(sub)
	t.Run("revokes its clients", func(t *testing.T) {
		f.t = t
		f.withCRL(f.revoking(sub, bad))
		s := f.open()
		f.wantRefused(s, bad, ErrClientRevoked)
		f.wantAdmitted(s, good)
		f.wantRefused(s, f.client, ErrNoCRL) // the root's own: the root has no list
	})
	t.Run("forged counts for nothing", func(t *testing.T) {
		f.t = t
		f.withCRL(f.forged(f.ca, "sub"))
		f.wantRefused(f.open(), good, ErrNoCRL)
	})
	t.Run("is itself revoked", func(t *testing.T) {
		f.t = t
		f.withCRL(slices.Concat(f.revoking(sub), f.crl(f.ca, pki.CRLOptions{Revoked: []*big.Int{serialOf(sub)}})))
		s := f.open()
		f.wantRefused(s, good, ErrClientRevoked)
		f.wantAdmitted(s, f.client)
	})
	t.Run("is itself revoked and in the bundle", func(t *testing.T) {
		f.t = t
		f.write("ca.crt", slices.Concat(f.ca.PEM(), sub.PEM()))
		f.wantRefused(f.open(), good, ErrClientRevoked)
	})
}

func TestOnlyEntriesOfACRLChangeTrust(t *testing.T) {
	f := newFixture(t)
	one, two := f.clientOf(f.ca), f.clientOf(f.ca)
	f.withCRL(f.revoking(f.ca, one, two))
	s := f.open()
	trust := s.Snapshot().Trust
	changed := func(text []byte) bool {
		t.Helper()
		f.write("ca.crl", text)
		f.reload(s)
		last := trust
		trust = s.Snapshot().Trust
		return trust != last
	}
	if changed(f.crl(f.ca, pki.CRLOptions{Revoked: []*big.Int{two.Leaf.SerialNumber, one.Leaf.SerialNumber}, NextUpdate: time.Now().Add(time.Hour)})) {
		t.Error("new dates and another order changed trust")
	}
	if !changed(f.revoking(f.ca, one)) {
		t.Error("an entry less did not change trust")
	}
	if !changed(f.revoking(f.ca, one, f.client)) {
		t.Error("an entry more did not change trust")
	}
	if got := s.Snapshot().TrustGeneration; got != 3 {
		t.Errorf("trust generation %d, want 3", got)
	}
}

func der(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}

// flip damages one byte of the DER; from the end where it is negative.
func flip(text []byte, at int) []byte {
	d := slices.Clone(der(text))
	if at < 0 {
		at += len(d)
	}
	d[at] ^= 1
	return d
}

func serialOf(ca *pki.CA) *big.Int {
	cert, err := x509.ParseCertificate(der(ca.PEM()))
	if err != nil {
		panic(err)
	}
	return cert.SerialNumber
}

// forged is a list in the name of another CA, with the key identifier of like.
func (f *fixture) forged(like *pki.CA, name string) []byte {
	f.t.Helper()
	liar := newCA(f.t, name)
	text := f.revoking(liar)
	list, err := x509.ParseRevocationList(der(text))
	f.must(err)
	cert, err := x509.ParseCertificate(der(like.PEM()))
	f.must(err)
	return bytes.Replace(der(text), list.AuthorityKeyId, cert.SubjectKeyId, 1)
}

// extended is a list of the fixture's CA with one more extension.
func (f *fixture) extended(id asn1.ObjectIdentifier, critical bool, value []byte) []byte {
	f.t.Helper()
	return f.crl(f.ca, pki.CRLOptions{Extensions: []pkix.Extension{{Id: id, Critical: critical, Value: value}}})
}

var oidUnknown = asn1.ObjectIdentifier{1, 2, 3, 4}

func TestTrustFollowsWhoProvedAnEntry(t *testing.T) {
	f := newFixture(t)
	other := newCA(t, "root") // another key of the same name
	text := func(by *pki.CA, clients ...tls.Certificate) []byte { return f.revoking(by, clients...) }
	f.withCRL(slices.Concat(text(f.ca), text(other, f.client)))
	s := f.open()
	cs := f.wantAdmitted(s, f.client)
	trust := s.Snapshot().Trust
	f.write("ca.crl", slices.Concat(text(f.ca, f.client), text(other)))
	f.reload(s)
	if s.Snapshot().Trust == trust {
		t.Error("the entry counts now, and trust is as before")
	}
	if _, err := s.Snapshot().Recheck(&cs); !errors.Is(err, ErrClientRevoked) {
		t.Errorf("got %v", err)
	}
}

func TestRevocationOfACAReachesAllBelow(t *testing.T) {
	f := newFixture(t)
	one, err := f.ca.Intermediate("one")
	f.must(err)
	two, err := one.Intermediate("two")
	f.must(err)
	f.write("ca.crt", slices.Concat(f.ca.PEM(), two.PEM(), one.PEM()))
	f.withCRL(slices.Concat(f.revoking(one), f.revoking(two), f.crl(f.ca, pki.CRLOptions{Revoked: []*big.Int{serialOf(one)}})))
	s := f.open()
	f.wantRefused(s, f.clientOf(one), ErrClientRevoked)
	f.wantRefused(s, f.clientOf(two), ErrClientRevoked)
	f.wantAdmitted(s, f.client)
}

func TestALargeCRLIsParsedOnce(t *testing.T) {
	f := newFixture(t)
	var o pki.CRLOptions
	for i := range 2000 {
		o.Revoked = append(o.Revoked, big.NewInt(int64(i+1)))
	}
	f.withCRL(f.crl(f.ca, o))
	s := f.open()
	list := s.sources.crl.good[0]
	f.writePair("server", f.pair())
	f.reload(s)
	if s.sources.crl.good[0] != list {
		t.Error("parsed anew for another file")
	}
	f.write("server.key", nil)
	if _, err := s.Reload(); err == nil {
		t.Fatal("no fault")
	}
	f.writePair("server", f.pair())
	f.reload(s)
	if s.sources.crl.good[0] != list {
		t.Error("parsed anew behind a fault of another file")
	}
	if list.signed.RawTBSRevocationList != nil {
		t.Error("it is held twice")
	}
	f.write("ca.crl", f.revoking(f.ca, f.client))
	f.reload(s)
	f.wantRefused(s, f.client, ErrClientRevoked)
}
