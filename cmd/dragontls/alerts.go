package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"dragontls/certs"
	"dragontls/proxy/admin"
)

// maxAlertFaults of one failed reload are told; the log has the first, and how many there are.
const maxAlertFaults = 5

// maxQuoted characters of a name or an error are told: the cure comes after it.
const maxQuoted = 512

// startAlerts watches for what ends, and tells the webhook of that and of failed reloads while there is one.
// All of it ends with ctx; s.watching waits for it.
func (s *service) startAlerts(ctx context.Context) {
	s.alerts = admin.NewAlerts(admin.AlertOptions{URL: func() (string, error) { return s.current().AlertWebhook() }, Log: s.log})
	t := teller{host: hostname(), send: s.alert}
	s.store.OnFault(func(err error) { t.fault("server", err) })
	s.store.OnRevoked(t.revoked)
	if s.backend != nil {
		s.backend.OnFault(func(err error) { t.fault("backend", err) })
	}
	expiry := certs.ExpiryOptions{
		Store: s.store, Client: s.backend, Warning: s.c.ExpiryWarning, Warnings: s.expiryWarning, Notify: t.expiry, Log: s.log,
	}
	s.watching.Go(func() { s.alerts.Run(ctx) })
	s.watching.Go(func() { certs.WatchExpiry(ctx, expiry) })
}

// alert sends a text to the webhook, if there is one now.
func (s *service) alert(text string) {
	if c := s.current(); c.AlertWebhookURL != "" || c.AlertWebhookURLFile != "" {
		s.alerts.Send(text)
	}
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "an unknown host"
	}
	return name
}

// teller words alerts for a person who has just been woken: where, what, until when, and what to do.
type teller struct {
	host string
	send func(text string)
}

func (t teller) expiry(e certs.Expiry) {
	what := strings.ReplaceAll(e.Role, "_", " ") + " certificate"
	details := fmt.Sprintf("serial %s, subject %s", e.Serial, inCode(e.Name))
	if e.Role == certs.RoleCRL {
		what, details = "CRL", "issuer "+inCode(e.Name)
	}
	verb := "ends in " + roughly(e.Left)
	if e.Left < 0 {
		verb = "ENDED " + roughly(-e.Left) + " ago"
	}
	text := fmt.Sprintf("dragontls on %s: %s %s, on %s\nFile: %s (%s)\n",
		t.host, what, verb, e.NotAfter.UTC().Format(time.RFC3339), inCode(e.File), details)
	if e.OnDisk != "" {
		text += "On disk: " + inCode(e.OnDisk) + "\n"
	}
	t.send(text + "Cure: " + oneLine(e.Cure))
}

// fault tells of a failed reload; nil: that the files are good again.
func (t teller) fault(side string, err error) {
	if err == nil {
		t.send(fmt.Sprintf("dragontls on %s: the %s certificate files are good again and in use", t.host, side))
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "dragontls on %s: reload of the %s certificate files FAILED; the last good ones stay in use", t.host, side)
	faults := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		faults = many.Unwrap()
	}
	for i, one := range faults {
		if i == maxAlertFaults {
			fmt.Fprintf(&b, "\nand %d more", len(faults)-i)
			break
		}
		var f *certs.Fault
		if !errors.As(one, &f) {
			fmt.Fprintf(&b, "\nReason: %s", inCode(one.Error()))
			continue
		}
		fmt.Fprintf(&b, "\nReason: %s: %s", f.Reason, inCode(f.Err.Error()))
		if f.Cure != "" {
			fmt.Fprintf(&b, "\nCure: %s", oneLine(f.Cure))
		}
	}
	t.send(b.String())
}

func (t teller) revoked(r certs.Revocation) {
	t.send(fmt.Sprintf("dragontls on %s: the server certificate is REVOKED, since %s\nFile: %s (serial %s)\nCure: replace the certificate and its key; clients that check will refuse it",
		t.host, r.At.UTC().Format(time.RFC3339), inCode(r.File), r.Serial))
}

// inCode is a text that others chose, such as the name in a certificate: on one
// line, so that it cannot look like a line of ours, and as code, in which Slack
// renders neither links nor emphasis.
func inCode(s string) string {
	return "`" + strings.ReplaceAll(inShort(s), "`", "'") + "`"
}

// roughly is d in the unit in which a person thinks of it.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{day, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*unit.of {
			return fmt.Sprintf("%d %s", d/unit.of, unit.name)
		}
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}

func (s *service) collectAlerts(m metrics) {
	const help = "Alerts by what came of them; dropped: too many at a time, or the end of the process."
	st := s.alerts.Stats()
	m.counter("alerts_total", help, st.Sent, label("result", "sent"))
	m.counter("alerts_total", help, st.Failed, label("result", "failed"))
	m.counter("alerts_total", help, st.Dropped, label("result", "dropped"))
}

// collectCRLs has one series for each issuer's name in a file, of the list that ends first of those that matter:
// there may be several by CAs of one name.
func collectCRLs(m metrics, current []certs.CRL) {
	type key struct{ file, issuer string }
	first, entries := map[key]certs.CRL{}, map[key]int{}
	for _, c := range current {
		k := key{c.File, c.Issuer}
		if other, ok := first[k]; !ok || c.NextUpdate.Before(other.NextUpdate) {
			first[k] = c
		}
		entries[k] += c.Entries
	}
	const which = "; of an issuer's lists with one key only the one that ends last counts, of several keys the one that ends first"
	for k, c := range first {
		l := []admin.Label{label("file", k.file), label("issuer", k.issuer)}
		m.gauge("crl_this_update_seconds", "When a CRL was issued, unix time"+which+".", float64(c.ThisUpdate.Unix()), l...)
		m.gauge("crl_next_update_seconds", "When a CRL ends, unix time"+which+".", float64(c.NextUpdate.Unix()), l...)
		m.gauge("crl_entries", "Revoked certificates on the CRLs of an issuer, of each key the one that ends last.", float64(entries[k]), l...)
	}
}

func (s *service) collectStaples(m metrics) {
	for _, st := range s.store.Staples() {
		m.gauge("ocsp_next_update_seconds", "When a stapled OCSP response ends, unix time.", float64(st.NextUpdate.Unix()),
			label("file", st.File), label("serial", st.Serial))
	}
}
