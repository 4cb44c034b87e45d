// Package certs holds what TLS needs from files, reads it again when the files
// change, and never lets a bad file replace a good one.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/certs/reload"

	"github.com/rs/zerolog"
)

// Options configures a Store.
type Options struct {
	// CertFiles and KeyFiles are chains and keys (PEM), of equal length. The
	// first pair is the default.
	CertFiles, KeyFiles []string
	// KeyPasswordFile holds the passphrase of those keys that are encrypted (PKCS #8).
	KeyPasswordFile string
	// ClientCAFile is the bundle that signs client certificates; required
	// unless ClientAuth is NoClientCert.
	ClientCAFile string
	// CRLFile holds CRLs (PEM or DER). With it, new handshakes need one in date of
	// the issuer of the client's leaf, unless CRLWarn only warns.
	CRLFile string
	CRLWarn bool
	// Login says which of the verified clients may connect, and as whom.
	Login Login
	// ClientAuth is RequireAndVerifyClientCert, VerifyClientCertIfGiven or NoClientCert.
	ClientAuth tls.ClientAuthType
	// MinVersion and MaxVersion default to TLS 1.2 and 1.3. Nothing below 1.2 is accepted.
	MinVersion, MaxVersion uint16
	// TicketKeysFile holds a master secret of at least 32 bytes (raw, hex or
	// base64), shared by replicas. Empty: a random one for the life of the Store.
	TicketKeysFile string
	// OCSP staples responses to the server certificates: empty or "off", "fetch" from
	// the responders that the certificates name, or a file with a response (DER).
	OCSP string
	Log  zerolog.Logger

	clock  func() time.Time // nil: time.Now
	shared *sharedCerts     // of the Store
}

// Stats counts what became of reloads.
type Stats = reload.Stats

// Store serves the current Snapshot. Its methods may be called concurrently.
type Store struct {
	opts     Options
	random   []byte // ticket master without a TicketKeysFile
	sources  *sources
	files    *reload.Files
	snapshot atomic.Pointer[Snapshot]
	stapler  *stapler // nil: OCSP is off
}

// Open reads and verifies all files. The error holds every fault, each a *Fault
// where it concerns a file.
func Open(o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	o.shared = &sharedCerts{}
	s := &Store{opts: o, random: randomMaster(), sources: newSources(&o)}
	s.files = &reload.Files{Paths: s.sources.files(), Apply: s.apply, Tick: s.turnDay, Log: o.Log, Clock: o.clock}
	if o.OCSP != "" && o.OCSP != ocspOff {
		s.stapler = newStapler(s)
	}
	if err := s.files.Open(); err != nil {
		return nil, err
	}
	return s, nil
}

// complete fills in defaults and refuses what no file could make right.
func (o *Options) complete() error {
	if o.clock == nil {
		o.clock = time.Now
	}
	if o.MinVersion == 0 {
		o.MinVersion = tls.VersionTLS12
	}
	if o.MaxVersion == 0 {
		o.MaxVersion = tls.VersionTLS13
	}
	var all faults
	if len(o.CertFiles) == 0 || len(o.CertFiles) != len(o.KeyFiles) {
		all.add(fmt.Errorf("%d certificate files and %d key files: one key for each of at least one certificate", len(o.CertFiles), len(o.KeyFiles)))
	}
	if o.MinVersion < tls.VersionTLS12 || o.MaxVersion > tls.VersionTLS13 || o.MinVersion > o.MaxVersion {
		all.add(fmt.Errorf("TLS versions %s to %s: 1.2 to 1.3 are possible", tls.VersionName(o.MinVersion), tls.VersionName(o.MaxVersion)))
	}
	// Without a pool, the system's roots would sign client certificates.
	if o.ClientAuth != tls.NoClientCert && o.ClientCAFile == "" {
		all.add(newFault("", ReasonNoCA, "name a bundle of client CAs", "client certificates are asked for, but no client CA is configured"))
	}
	if o.CRLFile != "" && o.ClientCAFile == "" {
		all.add(errors.New("a CRL file without a client CA: no client certificate can be revoked"))
	}
	if o.Login.required() && o.ClientAuth == tls.NoClientCert {
		all.add(errors.New("allow patterns or a users file, but no client certificates: nobody could connect"))
	}
	switch o.ClientAuth {
	case tls.NoClientCert:
	case tls.RequireAndVerifyClientCert, tls.VerifyClientCertIfGiven:
	default:
		all.add(fmt.Errorf("client auth %v: would not verify", o.ClientAuth))
	}
	return all.join()
}

// TLSConfig returns the configuration for tls.Server. Each handshake sees one
// snapshot: the one that is current when its ClientHello is in.
func (s *Store) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: s.opts.MinVersion,
		MaxVersion: s.opts.MaxVersion,
		ClientAuth: asking(s.opts.ClientAuth),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.snapshot.Load().config, nil
		},
	}
}

// Snapshot returns the current one, never nil.
func (s *Store) Snapshot() *Snapshot { return s.snapshot.Load() }

// Reload reads all files now. Faults are logged, counted and returned, and hold back
// their source only.
func (s *Store) Reload() (changed bool, err error) { return s.files.Reload(true) }

// Watch reloads on file events and at least every interval (zero: 10 s), changes
// the ticket keys when the UTC day turns, and keeps OCSP responses fresh. It
// returns when ctx ends.
func (s *Store) Watch(ctx context.Context, interval time.Duration) {
	if s.stapler != nil {
		var stapling sync.WaitGroup
		stapling.Go(func() { s.stapler.run(ctx) })
		defer stapling.Wait()
	}
	s.files.Watch(ctx, interval)
}

// Stats counts what became of reloads. It returns a copy.
func (s *Store) Stats() Stats { return s.files.Stats() }

// OnChange has f called after each swap for new content, by the goroutine that
// reloaded and outside all locks. Two calls may overlap or change places when
// Reload is called beside Watch: Generation tells the later one.
func (s *Store) OnChange(f func(*Snapshot)) {
	s.files.OnChange(func() { f(s.snapshot.Load()) })
}

// Held returns the sources whose files hold something that is not in use because of a fault.
func (s *Store) Held() []Held { return s.files.Held() }

// OnFault has f called with the new faults when a reload holds a source back for a new reason, and
// with nil when a later one finds all files good again. It is called like OnChange.
func (s *Store) OnFault(f func(error)) { s.files.OnFault(f) }

// apply takes into use what the files hold, source by source.
func (s *Store) apply(c reload.Contents) reload.Outcome {
	last := s.snapshot.Load()
	s.sources.read(c)
	next, err := s.sources.compose(&s.opts, last, s.random, s.opts.clock())
	out := reload.Outcome{Held: s.sources.held()}
	switch {
	case err != nil: // a bug: nothing that a file holds makes it
		out.Held = append(out.Held, Held{Source: &s.sources.pairs[0].Source, Err: err})
		return out
	case next == nil:
		s.sources.settle()
		return out
	}
	next.Generation, next.TrustGeneration = 1, 1
	if last != nil {
		next.Generation, next.TrustGeneration = last.Generation+1, last.TrustGeneration
		if next.Trust != last.Trust {
			next.TrustGeneration++
		}
	}
	out.Changes = s.sources.changes(next, last)
	if s.stapler != nil {
		s.stapler.prepare(next)
	}
	s.snapshot.Store(next)
	s.sources.settle()
	if last != nil && next.clients != last.clients {
		s.warnBundle(next.clients)
	}
	return out
}

// warnBundle logs what a new bundle trusts in a way that its operator may not think of. At start, check's findings say it.
func (s *Store) warnBundle(clients *bundle) {
	l := newLinter(LintOptions{Now: s.opts.clock()})
	for i, ca := range clients.certs {
		l.trusted(s.opts.ClientCAFile, title(i, ca), ca, clientsRefused)
	}
	for _, f := range l.found {
		s.opts.Log.Warn().Str("id", f.ID).Str("severity", string(f.Severity)).Str("subject", f.Subject).Str("finding", f.Message).Str("cure", f.Cure).Msg("deployment finding")
	}
}

// turnDay publishes the ticket keys of a new day: the same snapshot with another config.
// It must not run beside apply.
func (s *Store) turnDay() {
	last := s.snapshot.Load()
	d := day(s.opts.clock())
	if d == last.day {
		return
	}
	next, err := last.withTicketKeys(d)
	if err != nil {
		s.opts.Log.Warn().Err(err).Msg("ticket keys of the new day refused: those of the day before stay in use")
		return
	}
	s.snapshot.Store(next)
}
