package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"dragontls/certs/reload"

	"github.com/rs/zerolog"
)

// clientSessions bounds the backend sessions kept for resumption: one backend, a few tickets.
const clientSessions = 64

// ClientOptions configures a Client.
type ClientOptions struct {
	CAFile            string // empty: the system's roots
	CertFile, KeyFile string // both or none
	ServerName        string // empty: the dialer fills it in from the host
	Log               zerolog.Logger

	clock func() time.Time // nil: time.Now
}

// Client is the TLS client side toward the backend, reloaded like a Store. Its
// methods may be called concurrently.
type Client struct {
	opts    ClientOptions
	files   *reload.Files
	current atomic.Pointer[clientState]
}

// clientState is immutable.
type clientState struct {
	config *tls.Config
	certs  []Cert
	ca     *bundle // nil: the system's roots
}

// OpenClient reads and verifies all files. The error holds every fault.
func OpenClient(o ClientOptions) (*Client, error) {
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, fmt.Errorf("backend client certificate %q and key %q: both or none", o.CertFile, o.KeyFile)
	}
	if o.clock == nil {
		o.clock = time.Now
	}
	c := &Client{opts: o}
	c.files = &reload.Files{Paths: []string{o.CAFile, o.CertFile, o.KeyFile}, Apply: c.apply, Log: o.Log, Clock: o.clock}
	if err := c.files.Open(); err != nil {
		return nil, err
	}
	return c, nil
}

// TLSConfig returns a copy of the current configuration, for one dial.
func (c *Client) TLSConfig() *tls.Config { return c.current.Load().config.Clone() }

// Reload reads all files now. Faults are logged, counted and returned, and
// change nothing.
func (c *Client) Reload() (changed bool, err error) { return c.files.Reload(true) }

// Watch reloads on file events and at least every interval (zero: 10 s). It
// returns when ctx ends.
func (c *Client) Watch(ctx context.Context, interval time.Duration) {
	c.files.Watch(ctx, interval)
}

// OnChange has f called after each swap for new content; see Store.OnChange.
func (c *Client) OnChange(f func()) { c.files.OnChange(f) }

// OnFault has f called with each new fault, and with nil when it is over; see Store.OnFault.
func (c *Client) OnFault(f func(error)) { c.files.OnFault(f) }

// Stats counts what became of reloads. It returns a copy.
func (c *Client) Stats() Stats { return c.files.Stats() }

// Certs describes what is in use.
func (c *Client) Certs() []Cert { return c.current.Load().certs }

func (c *Client) apply(files reload.Contents, event *zerolog.Event) error {
	now := c.opts.clock()
	// The cache of sessions is new with each state: an old one would go on with
	// the certificate it was made with.
	next := &clientState{config: &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		ServerName:                  c.opts.ServerName,
		ClientSessionCache:          tls.NewLRUClientSessionCache(clientSessions),
		DynamicRecordSizingDisabled: true,
	}}
	var all faults
	if c.opts.CAFile != "" {
		b, err := parseBundle(files, c.opts.CAFile, "backend_ca", now)
		all.add(err)
		if err == nil {
			next.ca = b
			next.config.RootCAs = b.pool
			next.certs = append(next.certs, b.info...)
		}
	}
	if c.opts.CertFile != "" {
		p, err := parsePair(files, c.opts.CertFile, c.opts.KeyFile, "backend_client", x509.ExtKeyUsageClientAuth, now)
		all.add(err)
		if err == nil {
			next.config.Certificates = []tls.Certificate{p.tls}
			next.certs = append(next.certs, p.info...)
			event.Str("file", p.file).Str("serial", p.info[0].Serial).Time("not_after", p.info[0].NotAfter)
		}
	}
	if len(all) > 0 {
		return all.join()
	}
	event.Str("side", "backend")
	c.current.Store(next)
	return nil
}
