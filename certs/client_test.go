package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"dragontls/certs/pki"

	"github.com/rs/zerolog"
)

// backend is a TLS server that wants client certificates of ca.
func (f *fixture) backend(ca *pki.CA) string {
	f.t.Helper()
	p := f.issue(ca, pki.Leaf{DNS: []string{"localhost"}, Server: true})
	c, err := tls.X509KeyPair(p.cert, p.key)
	f.must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(f.ca.PEM())
	return f.serve(&tls.Config{Certificates: []tls.Certificate{c}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
}

func TestClientFollowsItsFiles(t *testing.T) {
	f := newFixture(t)
	next := newCA(t, "next")
	before, after := f.backend(f.ca), f.backend(next)
	f.writePair("client", f.issue(f.ca, pki.Leaf{CN: "proxy", Client: true}))
	c, err := OpenClient(ClientOptions{CAFile: f.path("ca.crt"), CertFile: f.path("client.crt"), KeyFile: f.path("client.key"),
		ServerName: "localhost", Log: zerolog.New(f.log)})
	f.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Watch(ctx, time.Hour)
	}()
	defer func() { cancel(); <-done }()
	f.eventually("watching", func() bool { return c.Stats().ReloadsUnchanged > 0 })

	f.dial(before, c.TLSConfig())
	if !f.dial(before, c.TLSConfig()).DidResume {
		t.Error("the second dial did not resume")
	}
	if _, err := dial(after, c.TLSConfig()); err == nil {
		t.Error("a backend of an unknown CA was accepted")
	}
	f.rename("ca.crt", slices.Concat(f.ca.PEM(), next.PEM()))
	f.eventually("second CA trusted", func() bool { return len(c.Certs()) == 3 })
	f.dial(after, c.TLSConfig())

	p := f.issue(f.ca, pki.Leaf{CN: "proxy", Client: true})
	f.rename("client.key", p.key)
	f.eventually("refused", func() bool { return c.Stats().ReloadsFailed[ReasonMismatch] == 1 })
	f.dial(before, c.TLSConfig())
	f.rename("client.crt", p.cert)
	f.eventually("new certificate", func() bool { return c.Certs()[2].Serial == p.serial(t) })
	if f.dial(before, c.TLSConfig()).DidResume {
		t.Error("resumed a session of the old certificate")
	}
	if changed, err := c.Reload(); changed || err != nil {
		t.Errorf("reload without a change: %v, %v", changed, err)
	}
}

func TestOpenClientListsAllFaults(t *testing.T) {
	f := newFixture(t)
	f.must(os.Remove(f.path("ca.crt")))
	_, err := OpenClient(ClientOptions{CAFile: f.path("ca.crt"), CertFile: f.path("server.crt"), KeyFile: f.path("server.key")})
	if got, want := reasons(err), []string{"ca.crt unreadable", "server.crt eku"}; !reflect.DeepEqual(got, want) {
		t.Errorf("faults %q, want %q", got, want)
	}
	if _, err := OpenClient(ClientOptions{CertFile: f.path("server.crt")}); err == nil {
		t.Error("opened with a certificate and no key")
	}
}

func TestClientWithoutFilesUsesTheSystemRoots(t *testing.T) {
	c, err := OpenClient(ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if config := c.TLSConfig(); config.RootCAs != nil || config.InsecureSkipVerify || config.MinVersion != tls.VersionTLS12 {
		t.Error("config is not as promised")
	}
	a, b := c.TLSConfig(), c.TLSConfig()
	if a == b {
		t.Error("dialers share a config that they may change")
	}
}
