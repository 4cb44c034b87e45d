package certs

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"
)

func TestOpenListsAllFaultsAtOnce(t *testing.T) {
	f := newFixture(t)
	other := f.pair()
	f.write("mixed.crt", other.cert)
	f.write("expired.crt", nil)
	now := time.Now()
	old := f.issue(f.ca, pki.Leaf{CN: "old", Server: true, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	f.writePair("old", old)
	soon := f.issue(f.ca, pki.Leaf{CN: "soon", Server: true, NotBefore: now.Add(time.Hour)})
	f.writePair("soon", soon)
	f.writePair("client", f.issue(f.ca, pki.Leaf{CN: "client", Client: true}))
	f.write("torn.crt", other.cert[:100])
	f.write("torn.key", other.key[:100])
	f.write("unordered.crt", slices.Concat(other.cert, f.pair().cert))
	f.write("unordered.key", other.key)
	f.must(os.Mkdir(f.path("dir.crt"), 0o755))
	f.write("ticket", []byte("too short\n"))
	f.write("ca.crt", slices.Concat(f.ca.PEM(), other.cert))
	f.opts.CertFiles, f.opts.KeyFiles = nil, nil
	for _, name := range []string{"mixed.crt server.key", "old.crt old.key", "soon.crt soon.key", "client.crt client.key",
		"torn.crt torn.key", "unordered.crt unordered.key", "dir.crt missing.key"} {
		cert, key, _ := strings.Cut(name, " ")
		f.opts.CertFiles = append(f.opts.CertFiles, f.path(cert))
		f.opts.KeyFiles = append(f.opts.KeyFiles, f.path(key))
	}
	f.opts.TicketKeysFile = f.path("ticket")
	_, err := Open(f.opts)
	got := reasons(err)
	want := []string{"mixed.crt mismatch", "old.crt expired", "soon.crt not_yet_valid", "client.crt eku", "torn.crt parse", "torn.key parse",
		"unordered.crt chain", "dir.crt unreadable", "missing.key unreadable", "ca.crt no_ca", "ticket ticket_keys"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("faults\n%q, want\n%q\n%v", got, want, err)
	}
	for _, text := range []string{f.path("dir.crt"), "mode d", "owner ", "we are uid "} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error does not say %q", text)
		}
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Error("error does not wrap os.ErrNotExist")
	}
}

func TestOpenRefusesOptionsThatWouldNotVerify(t *testing.T) {
	tests := map[string]func(*Options){
		"no pair":            func(o *Options) { o.CertFiles, o.KeyFiles = nil, nil },
		"a key too few":      func(o *Options) { o.KeyFiles = nil },
		"TLS 1.1":            func(o *Options) { o.MinVersion = tls.VersionTLS11 },
		"versions crossed":   func(o *Options) { o.MinVersion, o.MaxVersion = tls.VersionTLS13, tls.VersionTLS12 },
		"any client cert":    func(o *Options) { o.ClientAuth = tls.RequireAnyClientCert },
		"no CA for required": func(o *Options) { o.ClientCAFile = "" },
		"no CA for optional": func(o *Options) { o.ClientCAFile, o.ClientAuth = "", tls.VerifyClientCertIfGiven },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			spoil(&f.opts)
			if _, err := Open(f.opts); err == nil {
				t.Error("opened")
			}
		})
	}
}

func TestBadFilesChangeNothingServedAndAreLoggedOnce(t *testing.T) {
	tests := []struct {
		name, reason string
		spoil        func(*fixture)
	}{
		{"mismatched pair", ReasonMismatch, func(f *fixture) { f.write("server.key", f.pair().key) }},
		{"truncated certificate", ReasonParse, func(f *fixture) { p := f.pair(); f.write("server.crt", p.cert[:len(p.cert)-20]) }},
		{"missing file", ReasonUnreadable, func(f *fixture) { f.must(os.Remove(f.path("server.key"))) }},
		{"bundle cut inside its second CA", ReasonParse, func(f *fixture) {
			both := slices.Concat(f.ca.PEM(), newCA(f.t, "next").PEM())
			f.write("ca.crt", both[:len(both)-40])
		}},
		{"leaf in the bundle", ReasonNoCA, func(f *fixture) { f.write("ca.crt", f.pair().cert) }},
		{"expired leaf", ReasonExpired, func(f *fixture) {
			now := time.Now()
			f.writePair("server", f.issue(f.ca, pki.Leaf{Server: true, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			first := f.pair()
			f.writePair("server", first)
			s := f.open()
			addr := f.serve(s.TLSConfig())
			before := s.Snapshot()
			test.spoil(f)
			for range 3 {
				if changed, err := s.files.Reload(false); changed || reasonOf(err) != test.reason {
					t.Fatalf("reload: changed %v, %v", changed, err)
				}
			}
			if s.Snapshot() != before {
				t.Error("snapshot was swapped")
			}
			f.wantServed(addr, first)
			stats := s.Stats()
			if got := stats.ReloadsFailed[test.reason]; got != 1 || stats.LastOK {
				t.Errorf("counted %d times, last ok %v; want once, false", got, stats.LastOK)
			}
			if got := f.log.count(refusedMessage); got != 1 {
				t.Errorf("logged %d times, want once", got)
			}
			if f.log.count("PRIVATE") > 0 {
				t.Error("key in the log")
			}
			// An operator who asks again is told again.
			if _, err := s.Reload(); err == nil || f.log.count(refusedMessage) != 2 {
				t.Errorf("forced reload: %v, logged %d times", err, f.log.count(refusedMessage))
			}
			next := f.pair()
			f.write("ca.crt", f.ca.PEM())
			f.writePair("server", next)
			if changed, err := s.files.Reload(false); !changed || err != nil {
				t.Fatalf("reload of good files: changed %v, %v", changed, err)
			}
			f.wantServed(addr, next)
			if stats := s.Stats(); !stats.LastOK || stats.ReloadsOK != 1 {
				t.Errorf("stats %+v", stats)
			}
		})
	}
}

func TestHandshakesNeverFailUnderReloads(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 4)
	for range cap(failed) {
		clients.Go(func() {
			for ctx.Err() == nil {
				if _, err := dial(addr, f.clientConfig()); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	for range 30 {
		f.writePair("server", f.pair())
		if changed, err := s.Reload(); !changed || err != nil {
			t.Errorf("reload: changed %v, %v", changed, err)
		}
	}
	cancel()
	clients.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if got := s.Snapshot().Generation; got != 31 {
		t.Errorf("generation %d, want 31", got)
	}
}

func TestAFaultThatTimeCuresIsRetried(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.opts.clock = func() time.Time { return now }
	s := f.open()
	next := f.issue(f.ca, pki.Leaf{CN: "soon", Server: true, NotBefore: now.Add(time.Hour)})
	f.writePair("server", next)
	if _, err := s.files.Reload(false); reasonOf(err) != ReasonNotYetValid {
		t.Fatalf("got %v, want %s", err, ReasonNotYetValid)
	}
	now = now.Add(2 * time.Hour)
	if changed, err := s.files.Reload(false); !changed || err != nil {
		t.Fatalf("reload: changed %v, %v", changed, err)
	}
	if err := s.Snapshot().Valid(now); err != nil {
		t.Errorf("valid: %v", err)
	}
	if err := s.Snapshot().Valid(now.AddDate(1, 0, 0)); reasonOf(err) != ReasonExpired {
		t.Errorf("a year later: %v, want %s", err, ReasonExpired)
	}
}

func TestReloadTellsWhatChanged(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	var seen []uint64
	s.OnChange(func(n *Snapshot) { seen = append(seen, n.Generation) })
	first := s.Snapshot()
	if changed, err := s.Reload(); changed || err != nil {
		t.Errorf("nothing written: changed %v, %v", changed, err)
	}
	f.writePair("server", f.pair())
	if changed, err := s.Reload(); !changed || err != nil {
		t.Errorf("new leaf: changed %v, %v", changed, err)
	}
	second := s.Snapshot()
	if second.Trust != first.Trust || second.Generation != first.Generation+1 {
		t.Error("a new leaf must change the generation only")
	}
	f.write("ca.crt", slices.Concat([]byte("a comment\n"), f.ca.PEM(), f.ca.PEM()))
	if _, err := s.Reload(); err != nil || s.Snapshot().Trust != first.Trust {
		t.Errorf("a comment and a duplicate changed the trust: %v", err)
	}
	f.write("ca.crt", slices.Concat(newCA(t, "next").PEM(), f.ca.PEM()))
	if _, err := s.Reload(); err != nil || s.Snapshot().Trust == first.Trust {
		t.Errorf("a second CA did not change the trust: %v", err)
	}
	if want := []uint64{2, 3, 4}; !reflect.DeepEqual(seen, want) {
		t.Errorf("hook saw generations %v, want %v", seen, want)
	}
	if got := s.Stats(); got.ReloadsOK != 3 || got.ReloadsUnchanged != 1 {
		t.Errorf("stats %+v", got)
	}
}

func TestClientsAreVerified(t *testing.T) {
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	expired := f.issue(f.ca, pki.Leaf{CN: "x", Client: true, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	expiredCert, err := tls.X509KeyPair(expired.cert, expired.key)
	f.must(err)
	server := f.pair()
	serverCert, err := tls.X509KeyPair(server.cert, server.key)
	f.must(err)
	tests := []struct {
		name                        string
		certs                       []tls.Certificate
		required, optional, without bool
	}{
		{"ours", []tls.Certificate{f.client}, true, true, true},
		{"through an intermediate", []tls.Certificate{f.clientOf(sub)}, true, true, true},
		{"none", nil, false, true, true},
		{"another CA's", []tls.Certificate{f.clientOf(newCA(t, "other"))}, false, false, true},
		{"expired", []tls.Certificate{expiredCert}, false, false, true},
		{"a server's", []tls.Certificate{serverCert}, false, false, true},
	}
	for _, auth := range []tls.ClientAuthType{tls.RequireAndVerifyClientCert, tls.VerifyClientCertIfGiven, tls.NoClientCert} {
		f.opts.ClientAuth = auth
		addr := f.serve(f.open().TLSConfig())
		for _, test := range tests {
			want := test.required
			switch auth {
			case tls.VerifyClientCertIfGiven:
				want = test.optional
			case tls.NoClientCert:
				want = test.without
			}
			config := f.clientConfig()
			config.Certificates = nil
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(test.certs) == 0 {
					return &tls.Certificate{}, nil
				}
				return &test.certs[0], nil // sent even if the server did not name its CA
			}
			if _, err := dial(addr, config); (err == nil) != want {
				t.Errorf("%v, %s: %v", auth, test.name, err)
			}
		}
	}
}

func TestVerifyConnectionJudgesByItsOwnSnapshot(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.opts.clock = func() time.Time { return now }
	s := f.open()
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{f.client.Leaf}}
	if err := s.Snapshot().verifyConnection(state); err != nil {
		t.Errorf("good chain: %v", err)
	}
	now = now.AddDate(1, 0, 0)
	if err := s.Snapshot().verifyConnection(state); !errors.Is(err, ErrClientExpired) {
		t.Errorf("a year later: %v, want %v", err, ErrClientExpired)
	}
	now = now.AddDate(-1, 0, 0)
	if err := s.Snapshot().verifyConnection(state); err != nil {
		t.Errorf("back again: %v", err)
	}
	state.PeerCertificates[0] = f.clientOf(newCA(t, "root")).Leaf
	var refused *ClientError
	if err := s.Snapshot().verifyConnection(state); !errors.Is(err, ErrClientUntrusted) || !errors.As(err, &refused) {
		t.Errorf("no chain: %v, want %v", err, ErrClientUntrusted)
	}
}

func TestSettingsOfTheHandshake(t *testing.T) {
	f := newFixture(t)
	f.opts.MaxVersion = tls.VersionTLS12
	s := f.open()
	config, err := s.TLSConfig().GetConfigForClient(nil)
	f.must(err)
	again, _ := s.TLSConfig().GetConfigForClient(nil)
	if config != again {
		t.Error("configs differ: each handshake would draw its own ticket keys")
	}
	if config.ClientCAs == nil || !config.DynamicRecordSizingDisabled || len(config.NextProtos) > 0 ||
		config.VerifyPeerCertificate != nil || config.MinVersion != tls.VersionTLS12 {
		t.Error("config is not as promised")
	}
	cs := f.dial(f.serve(s.TLSConfig()), f.clientConfig())
	if cs.Version != tls.VersionTLS12 {
		t.Errorf("version %s, want TLS 1.2", tls.VersionName(cs.Version))
	}
	old := f.clientConfig()
	old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	if _, err := dial(f.serve(s.TLSConfig()), old); err == nil {
		t.Error("TLS 1.1 accepted")
	}
}

func TestTheCertificateIsChosenByNameAndByWhatTheClientSupports(t *testing.T) {
	f := newFixture(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	f.must(err)
	f.opts.CertFiles, f.opts.KeyFiles = nil, nil
	add := func(name string, l pki.Leaf) {
		l.CN, l.Server = name, true
		f.writePair(name, f.issue(f.ca, l))
		f.opts.CertFiles = append(f.opts.CertFiles, f.path(name+".crt"))
		f.opts.KeyFiles = append(f.opts.KeyFiles, f.path(name+".key"))
	}
	add("first", pki.Leaf{DNS: []string{"first.test"}})
	add("second", pki.Leaf{DNS: []string{"Second.test", "both.test"}})
	add("rsa", pki.Leaf{DNS: []string{"both.test", "rsa.test"}, Key: rsaKey})
	add("wild", pki.Leaf{DNS: []string{"*.wild.test"}})
	add("one", pki.Leaf{DNS: []string{"one.wild.test"}})
	addr := f.serve(f.open().TLSConfig())
	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	tests := []struct {
		name   string
		suites []uint16 // nil: all, TLS 1.3
		want   string
	}{
		{"first.test", nil, "first"},
		{"second.test", nil, "second"},
		{"SECOND.test", nil, "second"},
		{"both.test", nil, "second"},
		{"both.test", rsaOnly, "rsa"},
		{"second.test", rsaOnly, "rsa"},
		{"x.wild.test", nil, "wild"},
		{"one.wild.test", nil, "one"},
		{"x.y.wild.test", nil, "first"},
		{"unknown.test", nil, "first"},
		{"", nil, "first"},
		{"", rsaOnly, "rsa"},
	}
	for _, test := range tests {
		config := f.clientConfig()
		config.ServerName = test.name
		config.InsecureSkipVerify = true // only the choice matters here
		if test.suites != nil {
			config.MaxVersion, config.CipherSuites = tls.VersionTLS12, test.suites
		}
		got := f.dial(addr, config).PeerCertificates[0].Subject.CommonName
		if got != test.want {
			t.Errorf("name %q, suites %v: got %q, want %q", test.name, test.suites, got, test.want)
		}
	}
}

func TestCertsDescribeAllThatIsInUse(t *testing.T) {
	f := newFixture(t)
	sub, err := f.ca.Intermediate("sub")
	f.must(err)
	p := f.issue(sub, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true})
	f.writePair("server", p)
	s := f.open()
	var got []string
	for _, c := range s.Snapshot().Certs {
		got = append(got, c.Role+" "+c.Subject)
	}
	if want := []string{"server CN=server", "server_chain CN=sub", "client_ca CN=root"}; !reflect.DeepEqual(got, want) {
		t.Errorf("certs %q, want %q", got, want)
	}
	f.wantServed(f.serve(s.TLSConfig()), p)
}
