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
	KeyPasswordFile   string // holds the passphrase of the key if that is encrypted
	ServerName        string // empty: the dialer fills it in from the host
	Log               zerolog.Logger

	clock func() time.Time // nil: time.Now
}

// Client is the TLS client side toward the backend, reloaded like a Store. Its
// methods may be called concurrently.
type Client struct {
	opts    ClientOptions
	ca      *kept[*bundle] // nil: the system's roots
	pair    *kept[*pair]   // nil if no certificate is shown
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
	c := newClient(o)
	c.files = &reload.Files{Paths: []string{o.CAFile, o.CertFile, o.KeyFile, o.KeyPasswordFile}, Apply: c.apply, Log: o.Log, Clock: o.clock}
	if err := c.files.Open(); err != nil {
		return nil, err
	}
	return c, nil
}

func newClient(o ClientOptions) *Client {
	c := &Client{opts: o}
	if o.CAFile != "" {
		c.ca = newBundleSource("backend_ca", o.CAFile, o.clock)
	}
	if o.CertFile != "" {
		c.pair = newPairSource("backend_pair", o.CertFile, o.KeyFile, o.KeyPasswordFile, "backend_client", x509.ExtKeyUsageClientAuth, o.clock)
	}
	return c
}

// TLSConfig returns a copy of the current configuration, for one dial.
func (c *Client) TLSConfig() *tls.Config { return c.current.Load().config.Clone() }

// Reload reads all files now. Faults are logged, counted and returned, and hold back
// their source only.
func (c *Client) Reload() (changed bool, err error) { return c.files.Reload(true) }

// Watch reloads on file events and at least every interval (zero: 10 s). It
// returns when ctx ends.
func (c *Client) Watch(ctx context.Context, interval time.Duration) {
	c.files.Watch(ctx, interval)
}

// OnChange has f called after each swap for new content; see Store.OnChange.
func (c *Client) OnChange(f func()) { c.files.OnChange(f) }

// Held returns the sources whose files hold something that is not in use because of a fault.
func (c *Client) Held() []Held { return c.files.Held() }

// OnFault has f called with each new fault, and with nil when it is over; see Store.OnFault.
func (c *Client) OnFault(f func(error)) { c.files.OnFault(f) }

// Stats counts what became of reloads. It returns a copy.
func (c *Client) Stats() Stats { return c.files.Stats() }

// Certs describes what is in use.
func (c *Client) Certs() []Cert { return c.current.Load().certs }

// each calls f with the sources that are configured.
func (c *Client) each(f func(step)) {
	if c.ca != nil {
		f(c.ca)
	}
	if c.pair != nil {
		f(c.pair)
	}
}

// apply takes into use what the files hold, source by source.
func (c *Client) apply(files reload.Contents) reload.Outcome {
	var out reload.Outcome
	fresh := false
	c.each(func(one step) {
		one.read(files)
		out.Held = append(out.Held, one.held()...)
		fresh = fresh || one.isFresh()
	})
	defer c.each(step.settle)
	last := c.current.Load()
	if last == nil && len(out.Held) > 0 || last != nil && !fresh {
		return out
	}
	c.current.Store(c.compose())
	out.Changes = c.changes()
	return out
}

func (c *Client) compose() *clientState {
	// The cache of sessions is new with each state: an old one would go on with
	// the certificate it was made with.
	next := &clientState{config: &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		ServerName:                  c.opts.ServerName,
		ClientSessionCache:          tls.NewLRUClientSessionCache(clientSessions),
		DynamicRecordSizingDisabled: true,
	}}
	if c.ca != nil {
		next.ca = c.ca.next
		next.config.RootCAs = next.ca.pool
		next.certs = append(next.certs, next.ca.info...)
	}
	if c.pair != nil {
		next.config.Certificates = []tls.Certificate{c.pair.next.tls}
		next.certs = append(next.certs, c.pair.next.info...)
	}
	return next
}

func (c *Client) changes() []reload.Change {
	var all []reload.Change
	if k := c.ca; k != nil && k.fresh {
		cas := len(k.next.certs)
		all = append(all, reload.Change{Source: &k.Source, Describe: func(e *zerolog.Event) {
			e.Str("side", "backend").Str("file", k.Files[0]).Int("cas", cas)
		}})
	}
	if k := c.pair; k != nil && k.fresh {
		leaf := k.next.info[0]
		all = append(all, reload.Change{Source: &k.Source, Describe: func(e *zerolog.Event) {
			e.Str("side", "backend").Str("file", leaf.File).Str("serial", leaf.Serial).Time("not_after", leaf.NotAfter)
		}})
	}
	return all
}
