package certs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

const (
	defaultExpiryWarning = 30 * 24 * time.Hour
	expiryRepeat         = 24 * time.Hour
	// maxExpiryWait: a timer does not notice that the clock was set or the machine slept.
	maxExpiryWait = time.Hour
)

// RoleCRL is the role of a CRL among certificates.
const RoleCRL = "crl"

// Expiry is a certificate or CRL that ends soon or has ended.
type Expiry struct {
	Role      string // of a Cert, or RoleCRL
	File      string
	Name      string // subject of the certificate, issuer of the CRL
	Serial    string // of the certificate, lower-case hex; empty for a CRL
	NotBefore time.Time
	NotAfter  time.Time     // next update of a CRL
	Left      time.Duration // until NotAfter when this was noticed; negative: ended
	Cure      string        // what to do about it
	// OnDisk says what the files hold in its place and why that is held back; empty: they hold what is in use.
	OnDisk string
}

// ExpiryOptions configures WatchExpiry.
type ExpiryOptions struct {
	Store  *Store
	Client *Client // nil: the backend is reached in clear
	// Warning is how long before an end the first warning comes, unless a third
	// of the validity is less. 0: 720 h.
	Warning time.Duration
	// Warnings brings another Warning from time to time; nil: it stays. What was spoken of is not spoken of again for that.
	Warnings <-chan time.Duration
	// Notify, if not nil, gets what is logged. It must not block.
	Notify func(Expiry)
	Log    zerolog.Logger

	clock func() time.Time // nil: time.Now
}

// WatchExpiry logs what is in use and ends soon: a warning when the time comes,
// another one each day, an error from the end on. What is replaced is spoken of
// no more. It returns when ctx ends.
func WatchExpiry(ctx context.Context, o ExpiryOptions) {
	if o.Warning <= 0 {
		o.Warning = defaultExpiryWarning
	}
	if o.clock == nil {
		o.clock = time.Now
	}
	changed := make(chan struct{}, 1)
	wake := func() {
		select {
		case changed <- struct{}{}:
		default: // it will look anyway
		}
	}
	o.Store.OnChange(func(*Snapshot) { wake() })
	if o.Client != nil {
		o.Client.OnChange(wake)
	}
	w := &expiryWatch{ExpiryOptions: o}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case w.Warning = <-o.Warnings:
		case <-timer.C:
		}
		timer.Reset(w.pass(o.clock()))
	}
}

// expiryWatch belongs to the goroutine of WatchExpiry.
type expiryWatch struct {
	ExpiryOptions
	spoken map[expiryKey]time.Time // when each was last spoken of
}

// expiryKey tells one certificate or CRL from what replaces it.
type expiryKey struct {
	role, file, name, serial string
	notAfter                 int64
}

// pass speaks of what is due and returns how long nothing else is.
func (w *expiryWatch) pass(now time.Time) time.Duration {
	spoken := make(map[expiryKey]time.Time)
	wait := maxExpiryWait
	for _, e := range w.inUse(now) {
		key := expiryKey{e.Role, e.File, e.Name, e.Serial, e.NotAfter.UnixNano()}
		if _, twice := spoken[key]; twice {
			continue // it stands in the file twice
		}
		last := w.spoken[key]
		if !now.Before(w.due(e, last)) {
			last = now
			e.Left = e.NotAfter.Sub(now)
			e.OnDisk = w.onDisk(e)
			w.say(e)
		}
		if !last.IsZero() {
			spoken[key] = last
		}
		wait = min(wait, w.due(e, last).Sub(now))
	}
	w.spoken = spoken
	return wait
}

// warnAhead is how long before its end something is to be renewed.
func warnAhead(warning time.Duration, begin, end time.Time) time.Duration {
	return min(warning, end.Sub(begin)/3)
}

// due is when e is to be spoken of, after it last was.
func (w *expiryWatch) due(e Expiry, last time.Time) time.Time {
	if last.IsZero() {
		return e.NotAfter.Add(-warnAhead(w.Warning, e.NotBefore, e.NotAfter))
	}
	next := last.Add(expiryRepeat)
	// NotAfter itself is a valid moment (RFC 5280, 4.1.2.5).
	if ended := e.NotAfter.Add(1); last.Before(ended) && !next.Before(e.NotAfter) {
		return ended
	}
	return next
}

func (w *expiryWatch) say(e Expiry) {
	event, text := w.Log.Warn(), "validity ends soon"
	if e.Left < 0 {
		event, text = w.Log.Error(), "validity has ended"
	}
	event = event.Str("role", e.Role).Str("file", e.File)
	if e.Role == RoleCRL {
		event = event.Str("issuer", e.Name)
	} else {
		event = event.Str("subject", e.Name).Str("serial", e.Serial)
	}
	if e.OnDisk != "" {
		event = event.Str("on_disk", e.OnDisk)
	}
	event.Time("not_after", e.NotAfter).Str("left", e.Left.Round(time.Second).String()).Str("cure", e.Cure).Msg(text)
	if w.Notify != nil {
		w.Notify(e)
	}
}

// onDisk says what the files of e hold if that is held back, and why.
func (w *expiryWatch) onDisk(e Expiry) string {
	held := w.Store.Held()
	if w.Client != nil {
		held = append(held, w.Client.Held()...)
	}
	for _, h := range held {
		if !slices.Contains(h.Files, e.File) {
			continue
		}
		fault := h.Fault()
		if h.Ends.After(e.NotAfter) {
			return fmt.Sprintf("a newer one, which ends on %s, is there, but has been held back since %s: %v", date(h.Ends), date(h.Since), fault.Err)
		}
		return fmt.Sprintf("what is there now cannot be used, since %s: %v", date(h.Since), fault.Err)
	}
	return ""
}

// InUse lists everything that is in use and has an end, but for a CRL that another one follows, with the time that is left now. client may
// be nil.
func InUse(s *Store, client *Client, now time.Time) []Expiry {
	w := expiryWatch{ExpiryOptions: ExpiryOptions{Store: s, Client: client}}
	all := w.inUse(now)
	for i := range all {
		e := &all[i]
		e.Left, e.OnDisk = e.NotAfter.Sub(now), w.onDisk(*e)
	}
	return all
}

// inUse lists everything that has an end and matters: not a CRL that another one follows.
func (w *expiryWatch) inUse(now time.Time) []Expiry {
	snapshot := w.Store.Snapshot()
	var all []Expiry
	for _, c := range snapshot.Certs {
		all = append(all, expiryOf(c))
	}
	for _, c := range snapshot.CurrentCRLs(now) {
		if !c.NextUpdate.IsZero() {
			all = append(all, Expiry{Role: RoleCRL, File: c.File, Name: c.Issuer, NotBefore: c.ThisUpdate, NotAfter: c.NextUpdate,
				Cure: cureOf(RoleCRL)})
		}
	}
	if w.Client != nil {
		for _, c := range w.Client.Certs() {
			all = append(all, expiryOf(c))
		}
	}
	return all
}

func expiryOf(c Cert) Expiry {
	return Expiry{Role: c.Role, File: c.File, Name: c.Subject, Serial: c.Serial, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Cure: cureOf(c.Role)}
}

func cureOf(role string) string {
	switch role {
	case "server_chain", "backend_client_chain":
		return "get the chain that the CA issues now and replace the file; no restart is needed"
	case "client_ca", "backend_ca":
		return "add the CA that follows to the bundle, have certificates issued by it, then remove this one; no restart is needed"
	case RoleCRL:
		return "have the CA issue a new CRL and replace the file; no restart is needed"
	}
	return "renew it and replace the certificate and its key; no restart is needed"
}
