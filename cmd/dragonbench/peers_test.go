package main

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// Every peer that this machine has is started as in a run, answers a client with a certificate, refuses one without,
// and, if it says that it can, takes a new certificate while it runs.
func TestEveryPeerServesAndReloads(t *testing.T) {
	r := testRig(t)
	ctx := context.Background()
	if err := r.findPeers(ctx, allPeers()); err != nil {
		t.Fatal(err)
	}
	for _, m := range r.missing {
		if m.Cure == "" && !strings.Contains(m.Why, "refuses") {
			t.Errorf("%s is missing (%s), and nothing says what to do", m.Name, m.Why)
		}
		t.Logf("%s: %s", m.Name, m.Why)
	}
	for _, f := range r.peers {
		t.Run(f.name, func(t *testing.T) {
			if f.version == "" {
				t.Error("no version")
			}
			i, err := r.start(ctx, f, startOptions{ownBackend: true, ownFiles: true})
			if err != nil {
				t.Fatal(err)
			}
			defer i.stop()
			if f.clear {
				return
			}
			wantRefusal(t, i)
			old, err := servedSerial(i)
			if err != nil {
				t.Fatal(err)
			}
			if f.reload == nil {
				t.Fatal("it says nothing about reloads")
			}
			if err := i.authority.rotate(); err != nil {
				t.Fatal(err)
			}
			if err := i.reload(ctx, i); err != nil {
				t.Fatal(err)
			}
			// stunnel resets connections while it reloads: the storm row counts that, here it may.
			for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				serial, err := servedSerial(i)
				if err == nil && serial != old {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("it still serves the old certificate (%v)", err)
				}
			}
		})
	}
}

func servedSerial(i *instance) (string, error) {
	config, err := i.site.files.client()
	if err != nil {
		return "", err
	}
	g := generator{work: work{Address: i.address}, tls: config}
	return g.handshakeAndPing(context.Background())
}

// wantRefusal connects without a certificate.
func wantRefusal(t *testing.T, i *instance) {
	t.Helper()
	config, err := i.site.files.client()
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = nil
	c, err := dial(context.Background(), i.address, config)
	if err != nil {
		return
	}
	defer c.abort()
	// Some refuse by an alert, nginx by closing the connection.
	if err := c.ask(pingCommandBytes, pongReply); err == nil {
		t.Error("a client without a certificate was served")
	}
}

// slowProxy is a TLS proxy that sleeps before it passes on what a client sent. It ends with the test.
func slowProxy(t *testing.T, i *instance, delay time.Duration) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(i.site.files.ServerCert, i.site.files.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	pass := func(to, from net.Conn, delay time.Duration) {
		defer to.Close()
		defer from.Close()
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			time.Sleep(delay)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			backend, err := net.Dial("tcp", i.backend.address)
			if err != nil {
				client.Close()
				continue
			}
			serving.Go(func() { pass(backend, client, delay) })
			serving.Go(func() { pass(client, backend, 0) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

func TestSlowProxyIsMeasuredAsSlow(t *testing.T) {
	r := testRig(t)
	i := &instance{found: found{peer: peer{name: "slow"}}, site: site{files: r.authority.files}, backend: r.shared}
	i.address = slowProxy(t, i, time.Millisecond)
	b := &bench{rig: r, plan: quickPlan()}
	row := rowsNamed([]string{"get-64B-c1-p1"})[0]
	s, err := b.measureLoad(context.Background(), &row, i)
	if err != nil {
		t.Fatal(err)
	}
	if s.P50 < 1000 || s.P99 < s.P50 || s.Rate <= 0 || s.Rate > 1000 {
		t.Errorf("got p50 %v us, p99 %v us, %v/s, want at least 1,000 us and at most 1,000/s", s.P50, s.P99, s.Rate)
	}
	if len(s.Errors) != 0 {
		t.Errorf("got errors %v", s.Errors)
	}
	if !strings.Contains(s.Session, "TLS 1.3") || !strings.Contains(s.Session, "X25519") {
		t.Errorf("got session %q", s.Session)
	}
	if s.BackendPss == 0 {
		t.Error("the backend has no memory")
	}
}

func TestRedisBenchmarkChecksTheGenerator(t *testing.T) {
	need(t, "redis-benchmark")
	r := testRig(t)
	ctx := context.Background()
	if err := r.findPeers(ctx, peersNamed([]string{ownTLSName})); err != nil {
		t.Fatal(err)
	}
	p := plan{rows: rowsNamed([]string{"get-64B-c1-p1", "set-64B-c1-p1"}), rounds: 1, seconds: 500 * time.Millisecond}
	b := &bench{rig: r, plan: p, progress: newProgress(os.Stderr, 0)}
	var err error
	if b.redisBenchmark, err = r.findRedisBenchmark(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := checkGenerator(b.results); len(got) != 2 || !strings.Contains(got[0], "of redis-benchmark's") {
		t.Errorf("got checks %q of %+v", got, b.results)
	}
	for _, res := range b.results {
		if len(res.Samples) != 1 || res.Samples[0].Rate <= 0 || res.Samples[0].P50 <= 0 {
			t.Errorf("%s: got %+v", res.Peer, res)
		}
	}
}

func TestDistinctClientCertificates(t *testing.T) {
	a, err := newAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path, err := a.manyClients(3)
	if err != nil {
		t.Fatal(err)
	}
	g := generator{work: work{Clients: path, Connections: 4}}
	g.tls = &tls.Config{}
	if _, err := g.configs(4); err == nil || !strings.Contains(err.Error(), "3 certificates for 4 connections") {
		t.Errorf("got %v", err)
	}
	config, err := g.configs(3)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 3 {
		seen[config(i).Certificates[0].Leaf.Subject.CommonName] = true
	}
	if len(seen) != 3 || !seen[keyName(2)] {
		t.Errorf("got certificates of %v, want three", seen)
	}
	if again, err := a.manyClients(3); err != nil || again != path {
		t.Errorf("the same number: got %q, %v, want %q", again, err, path)
	}
	if _, err := splitPairs([]byte("no PEM")); err == nil {
		t.Error("garbage was accepted")
	}
}

func TestNginxModule(t *testing.T) {
	for _, test := range []struct{ options, want, fault string }{
		{"--with-stream --with-stream_ssl_module", "", ""},
		{"--modules-path=/none --with-stream=dynamic --with-stream_ssl_module", "", "without its stream module"},
		{"--with-http_ssl_module", "", "without its stream module"},
	} {
		got, err := loadStream(test.options)
		if got != test.want || (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: got %q, %v", test.options, got, err)
		}
	}
}
