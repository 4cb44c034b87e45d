package certs

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/identity"
	"dragontls/certs/pki"
)

// An expired certificate that nobody has touched is no fault of a reload, of whatever source: a revocation takes effect.
func TestWhatHasMerelyAgedHoldsNothingBack(t *testing.T) {
	f := newFixture(t)
	var ahead atomic.Int64 // nanoseconds
	f.opts.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	now := time.Now()
	old := f.issue(f.ca, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true, NotAfter: now.Add(time.Hour)})
	f.writePair("server", old)
	f.withCRL(f.revoking(f.ca))
	s := f.open()
	ahead.Store(int64(2 * time.Hour))
	if s.Snapshot().Valid(f.opts.clock()) == nil {
		t.Fatal("nothing has aged")
	}
	f.write("ca.crl", f.revoking(f.ca, f.client))
	f.reload(s)
	f.wantRefused(s, f.client, ErrClientRevoked)
	if stats := s.Stats(); !stats.LastOK || len(stats.ReloadsFailed) > 0 {
		t.Errorf("aged is a fault: %+v", stats)
	}
	// The same with another file of the same pair: that is a fault, of the pair alone.
	f.write("server.crt", slices.Concat([]byte("a comment\n"), old.cert))
	f.write("ca.crl", f.revoking(f.ca))
	if changed, err := s.Reload(); !changed || !slices.Equal(reasons(err), []string{"server.crt expired"}) {
		t.Errorf("changed %v: %v", changed, err)
	}
	f.wantAdmitted(s, f.client)
}

// Whatever file is bad, the others are taken into use, and so is the file once it is put right.
func TestABadFileHoldsBackOnlyItself(t *testing.T) {
	next := newCA(t, "next")
	changes := map[string]struct {
		spoil, mend func(f *fixture)
		reason      string
	}{
		"pair": {
			func(f *fixture) { f.write("server.key", []byte("no key")) },
			func(f *fixture) { f.writePair("server", f.pair()) }, "server.key parse"},
		"second pair": {
			func(f *fixture) { f.must(os.Remove(f.path("second.crt"))) },
			func(f *fixture) { f.writePair("second", f.pair()) }, "second.crt unreadable"},
		"bundle": {
			func(f *fixture) { f.write("ca.crt", f.ca.PEM()[:100]) },
			func(f *fixture) { f.write("ca.crt", slices.Concat(f.ca.PEM(), next.PEM())) }, "ca.crt parse"},
		"CRL": {
			func(f *fixture) { f.write("ca.crl", []byte("no CRL")) },
			func(f *fixture) { f.write("ca.crl", slices.Concat(f.revoking(f.ca), f.revoking(next))) }, "ca.crl parse"},
		"allow file": {
			func(f *fixture) { f.write("allow", []byte("cm:client\n")) },
			func(f *fixture) { f.write("allow", []byte("cn:*\n")) }, "allow allow"},
		"users file": {
			func(f *fixture) { f.write("users.yaml", []byte("users: [\n")) },
			func(f *fixture) { f.write("users.yaml", []byte(usersOfTwo)) }, "users.yaml users"},
		"ticket keys": {
			func(f *fixture) { f.write("tickets", []byte("short")) },
			func(f *fixture) { f.write("tickets", bytes.Repeat([]byte("a1b2"), 16)) }, "tickets ticket_keys"},
		"OCSP response": {
			func(f *fixture) { f.write("response", []byte("no DER")) },
			func(f *fixture) { f.write("response", []byte{0x30, 3, 0x0a, 1, 0}) }, "response ocsp"},
	}
	for bad, c := range changes {
		t.Run(bad, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.writePair("second", f.pair())
			f.opts.CertFiles, f.opts.KeyFiles = append(f.opts.CertFiles, f.path("second.crt")), append(f.opts.KeyFiles, f.path("second.key"))
			f.withCRL(slices.Concat(f.revoking(f.ca), f.revoking(next)))
			f.opts.CRLWarn = true
			f.opts.Login = Login{AllowFile: f.path("allow"), UsersFile: f.path("users.yaml")}
			f.write("allow", []byte("cn:client\n"))
			f.write("password", []byte("secret\n"))
			f.write("users.yaml", []byte("users: [{match: ['cn:client'], user: first, password_file: password}]\n"))
			f.write("tickets", bytes.Repeat([]byte("0f1e"), 16))
			f.opts.TicketKeysFile = f.path("tickets")
			f.write("response", []byte{0x30, 3, 0x0a, 1, 0})
			f.opts.OCSP = f.path("response")
			s := f.open()
			before := s.Snapshot()

			c.spoil(f)
			for other, o := range changes {
				if other != bad && other != "OCSP response" { // its content stays the same here
					o.mend(f)
				}
			}
			changed, err := s.files.Reload(false)
			if !changed || !slices.Equal(reasons(err), []string{c.reason}) {
				t.Fatalf("changed %v: %v", changed, err)
			}
			now := s.Snapshot()
			for name, same := range map[string]bool{
				"pair": now.pairs[0].tls.Leaf.Equal(before.pairs[0].tls.Leaf), "second pair": now.pairs[1].tls.Leaf.Equal(before.pairs[1].tls.Leaf),
				"bundle": now.clients == before.clients, "users file": now.login.users == before.login.users,
				"CRL":         sameLists(now.revocation.all(), before.revocation.all()),
				"allow file":  now.login.allow.Digest() == before.login.allow.Digest(),
				"ticket keys": bytes.Equal(now.master, before.master),
			} {
				if same != (name == bad) {
					t.Errorf("%s: stayed as it was: %v", name, same)
				}
			}
			if stats := s.Stats(); stats.ReloadsOK != 1 || stats.LastOK || len(stats.ReloadsFailed) != 1 {
				t.Errorf("stats %+v", stats)
			}
			if changed, err := s.files.Reload(false); changed || err == nil {
				t.Errorf("read again: changed %v, %v", changed, err)
			}
			if got := s.Snapshot(); got != now {
				t.Error("the snapshot was made again for nothing")
			}
			c.mend(f)
			if changed, err := s.files.Reload(false); changed != (bad != "OCSP response") || err != nil {
				t.Errorf("put right: changed %v, %v", changed, err)
			}
			if stats := s.Stats(); !stats.LastOK || f.log.count(refusedMessage) != 1 {
				t.Errorf("stats %+v, logged %d times", stats, f.log.count(refusedMessage))
			}
		})
	}
}

// insisting sends its certificate whatever CAs the server names.
func (f *fixture) insisting(client tls.Certificate) *tls.Config {
	c := f.clientConfig()
	c.Certificates = nil
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }
	return c
}

// What narrows trust in one file takes effect whatever is wrong with another.
func TestTrustIsTakenAwayWhateverElseIsWrong(t *testing.T) {
	f := newFixture(t)
	other := newCA(t, "other")
	f.write("ca.crt", slices.Concat(f.ca.PEM(), other.PEM()))
	f.write("allow", []byte("cn:*\n"))
	f.opts.Login.AllowFile = f.path("allow")
	f.withCRL(slices.Concat(f.revoking(f.ca), f.revoking(other)))
	s := f.open()
	removed, revoked, stays := f.clientOf(other), f.client, f.clientOf(f.ca)
	cs := f.wantAdmitted(s, removed)
	f.write("allow", []byte("dns:[\n"))
	f.write("server.crt", nil)
	f.write("ca.crt", f.ca.PEM())
	f.write("ca.crl", f.revoking(f.ca, revoked))
	if changed, err := s.Reload(); !changed || err == nil {
		t.Errorf("changed %v: %v", changed, err)
	}
	if _, err := f.admitted(s, f.insisting(removed)); !errors.Is(err, ErrClientUntrusted) {
		t.Errorf("of the CA that was removed: got %v", err)
	}
	f.wantRefused(s, revoked, ErrClientRevoked)
	f.wantAdmitted(s, stays)
	if _, err := s.Snapshot().Recheck(&cs); err == nil {
		t.Error("a live session of the CA that was removed goes on")
	}
}

// damagedCRL is a list in PEM whose signature is damaged.
func damagedCRL(list []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: flip(list, -1)})
}

// Each list is signed on its own: one that is good counts, whatever is wrong with the rest of the file.
func TestAGoodListOfABadFileRevokes(t *testing.T) {
	for name, c := range map[string]struct {
		rest   func(f *fixture, other *pki.CA) []byte
		reason string
	}{
		"beside a damaged one":         {func(f *fixture, other *pki.CA) []byte { return damagedCRL(f.revoking(other)) }, "ca.crl crl"},
		"beside half a one":            {func(f *fixture, other *pki.CA) []byte { list := f.revoking(other); return list[:len(list)/2] }, "ca.crl parse"},
		"without that of the other CA": {func(*fixture, *pki.CA) []byte { return nil }, "ca.crl crl"},
		"beside an older one": {func(f *fixture, other *pki.CA) []byte {
			return f.crl(other, pki.CRLOptions{ThisUpdate: time.Now().Add(-48 * time.Hour)})
		}, "ca.crl crl"},
		"beside one that is no CRL": {func(f *fixture, _ *pki.CA) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("x")})
		}, "ca.crl crl"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			other := newCA(t, "other")
			gone := f.clientOf(other)
			f.write("ca.crt", slices.Concat(f.ca.PEM(), other.PEM()))
			f.withCRL(slices.Concat(f.revoking(f.ca), f.revoking(other, gone)))
			s := f.open()
			f.wantAdmitted(s, f.client)
			f.write("ca.crl", slices.Concat(f.revoking(f.ca, f.client), c.rest(f, other)))
			for range 2 {
				if _, err := s.files.Reload(false); !slices.Equal(reasons(err), []string{c.reason}) {
					t.Errorf("got %v", err)
				}
			}
			f.wantRefused(s, f.client, ErrClientRevoked)
			f.wantRefused(s, gone, ErrClientRevoked)
			f.wantAdmitted(s, f.clientOf(f.ca))
			f.wantAdmitted(s, f.clientOf(other)) // the last good list of its CA is in use
			f.write("ca.crl", slices.Concat(f.revoking(f.ca), f.revoking(other)))
			f.reload(s)
			f.wantAdmitted(s, f.client)
			f.wantAdmitted(s, gone)
		})
	}
}

// A wrong clock keeps no revocation out: a list of tomorrow revokes today, and its predecessor still says what is in date.
func TestAListThatIsNotYetValidRevokes(t *testing.T) {
	f := newFixture(t)
	good := f.revoking(f.ca)
	f.withCRL(good)
	s := f.open()
	tomorrow := time.Now().Add(24 * time.Hour)
	f.write("ca.crl", f.crl(f.ca, pki.CRLOptions{Revoked: []*big.Int{f.client.Leaf.SerialNumber}, ThisUpdate: tomorrow, NextUpdate: tomorrow.Add(time.Hour)}))
	for range 2 {
		if _, err := s.files.Reload(false); reasonOf(err) != ReasonCRL {
			t.Errorf("got %v", err)
		}
		f.wantRefused(s, f.client, ErrClientRevoked)
		f.wantAdmitted(s, f.clientOf(f.ca))
	}
	if got := len(s.Snapshot().CRLs); got != 2 {
		t.Errorf("%d lists in use, want both", got)
	}
	f.write("ca.crl", good) // put back
	f.reload(s)
	f.wantAdmitted(s, f.client)
}

// twin is a CA with the name and the key identifier of another one, and another key: a CRL of one cannot be told from a
// forged CRL of the other.
func twins(t *testing.T, name string) (*issued, *issued) {
	t.Helper()
	same := func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3, 4} }
	return mint(t, name, nil, nil, same), mint(t, name, nil, nil, same)
}

func (c *issued) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

func (c *issued) list(t *testing.T, number int64) []byte {
	t.Helper()
	now := time.Now()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}, c.cert, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func (c *issued) client(t *testing.T) tls.Certificate {
	t.Helper()
	leaf := mint(t, "client", c, nil, func(l *x509.Certificate) {
		l.IsCA, l.KeyUsage, l.ExtKeyUsage = false, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	return tls.Certificate{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key, Leaf: leaf.cert}
}

// CAs and CRLs that do not fit are not used together: the newest change is held back, but for the trust that it takes away.
func TestACombinationThatCannotHoldKeepsTheNewestChangeBack(t *testing.T) {
	open := func(t *testing.T) (f *fixture, s *Store, old, renewed, removed, stays *issued) {
		f = newFixture(t)
		old, renewed = twins(t, "twin")
		removed, stays = mint(t, "removed", nil, nil, nil), mint(t, "stays", nil, nil, nil)
		f.opts.CRLWarn = true
		f.write("ca.crt", slices.Concat(old.pem(), removed.pem(), stays.pem()))
		f.withCRL(old.list(t, 1))
		return f, f.open(), old, renewed, removed, stays
	}
	t.Run("the bundle first", func(t *testing.T) {
		f, s, old, renewed, removed, stays := open(t)
		added := mint(t, "added", nil, nil, nil)
		f.write("ca.crt", slices.Concat(renewed.pem(), stays.pem(), added.pem()))
		f.writePair("server", f.pair())
		for range 2 {
			if _, err := s.files.Reload(false); !slices.Equal(reasons(err), []string{"ca.crt crl"}) {
				t.Fatalf("got %v", err)
			}
			for name, c := range map[string]struct {
				ca      *issued
				trusted bool
			}{"old": {old, false}, "renewed": {renewed, false}, "removed": {removed, false}, "stays": {stays, true}, "added": {added, false}} {
				if _, err := f.admitted(s, f.insisting(c.ca.client(t))); (err == nil) != c.trusted {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if n := s.Stats().ReloadsOK; n != 1 {
			t.Errorf("%d reloads, want the pair and what the bundle takes away", n)
		}
		f.write("ca.crl", renewed.list(t, 2))
		f.reload(s)
		f.wantAdmitted(s, renewed.client(t))
		f.wantAdmitted(s, added.client(t))
	})
	t.Run("the bundle first, put back", func(t *testing.T) {
		f, s, old, renewed, removed, stays := open(t)
		f.write("ca.crt", slices.Concat(renewed.pem(), stays.pem()))
		if _, err := s.Reload(); err == nil {
			t.Fatal("no fault")
		}
		f.write("ca.crt", slices.Concat(old.pem(), removed.pem(), stays.pem()))
		f.reload(s)
		f.wantAdmitted(s, old.client(t))
		f.wantAdmitted(s, removed.client(t))
	})
	t.Run("the CRL first", func(t *testing.T) {
		f, s, old, renewed, _, stays := open(t)
		f.write("ca.crl", renewed.list(t, 2))
		if changed, err := s.files.Reload(false); changed || !slices.Equal(reasons(err), []string{"ca.crl crl"}) {
			t.Fatalf("changed %v: %v", changed, err)
		}
		f.wantAdmitted(s, old.client(t))
		f.write("ca.crt", slices.Concat(renewed.pem(), stays.pem()))
		f.reload(s)
		f.wantAdmitted(s, renewed.client(t))
		if _, err := f.admitted(s, f.insisting(old.client(t))); err == nil {
			t.Error("the old key is trusted")
		}
	})
	t.Run("a bad CRL with a good bundle", func(t *testing.T) {
		f, s, old, renewed, _, stays := open(t)
		f.write("ca.crl", renewed.list(t, 2))
		f.write("ca.crt", slices.Concat(old.pem(), stays.pem()))
		if changed, err := s.files.Reload(false); !changed || !slices.Equal(reasons(err), []string{"ca.crl crl"}) {
			t.Fatalf("changed %v: %v", changed, err)
		}
		f.wantAdmitted(s, old.client(t))
	})
}

// Removing an intermediate from the bundle does not make its CRL one that may disappear: clients may send that intermediate.
func TestTheCRLOfAnIntermediateOutlivesItsPlaceInTheBundle(t *testing.T) {
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	bad := f.clientOf(sub)
	f.write("ca.crt", slices.Concat(f.ca.PEM(), sub.PEM()))
	f.withCRL(slices.Concat(f.revoking(f.ca), f.revoking(sub, bad)))
	s := f.open()
	f.write("ca.crt", f.ca.PEM())
	f.reload(s)
	f.wantRefused(s, bad, ErrClientRevoked)
	f.wantAdmitted(s, f.clientOf(sub))
	f.write("ca.crl", f.revoking(f.ca))
	if _, err := s.Reload(); reasonOf(err) != ReasonCRL {
		t.Errorf("a list in use went away: %v", err)
	}
	f.wantRefused(s, bad, ErrClientRevoked)
}

// All faults of one source are told at once.
func TestEveryFaultOfAUsersFileIsToldAtOnce(t *testing.T) {
	f := newFixture(t)
	f.opts.Login.UsersFile = f.path("users.yaml")
	f.write("users.yaml", []byte("users:\n  - {match: ['cm:a'], user: a, password_file: p}\n  - {match: ['cn:b'], user: b, password_file: missing}\n"+
		"  - {match: ['cn:c'], user: c, password_file: missing, deny: ['@nonsense']}\n"))
	f.opts.Login.CheckUsers = func(u *identity.Users) error {
		for _, r := range u.Rules() {
			if slices.Contains(r.Deny, "@nonsense") {
				return os.ErrInvalid
			}
		}
		return nil
	}
	_, err := Open(f.opts)
	if err == nil {
		t.Fatal("opened")
	}
	for _, part := range []string{`pattern "cm:a"`, `user "b"`, `user "c"`, os.ErrInvalid.Error()} {
		if !bytes.Contains([]byte(err.Error()), []byte(part)) {
			t.Errorf("%q is missing in\n%v", part, err)
		}
	}
}
