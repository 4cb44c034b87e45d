package config

import (
	"strings"
	"testing"
)

func TestReasonsAreThoseOfTheManual(t *testing.T) {
	for table, want := range map[string]struct {
		rows int
		word string
		row  Reason
	}{
		"reasons of handshakes": {30, "no_crl", Reason{"", "TLS_CRL_FILE has no CRL of the CA that issued the certificate", "add the CRL of issuer"}},
		"reasons of sessions":   {35, "killed", Reason{"", "an operator closed it", "none; the client connects again, unless its certificate is revoked or no longer allowed"}},
		"backend faults": {20, "refused", Reason{"nobody listens at the address of the backend: the connection is refused",
			"the backend is down, or listens on another address or port", "start the backend, or correct host and port in BACKEND_URL"}},
		"limits": {8, "max_connections", Reason{"", "there are MAX_CONNECTIONS sessions: new clients are refused", "raise it, or run more replicas"}},
		"kinds of denials": {5, "authentication", Reason{"", "the client authenticates as somebody else than dragontls does for it; a wrong password is counted elsewhere",
			"take the password out of the client's settings, or set client_auth for the rule"}},
	} {
		rows := Reasons()[table]
		if len(rows) < want.rows {
			t.Errorf("%s: %d rows, want at least %d", table, len(rows), want.rows)
		}
		if rows[want.word] != want.row {
			t.Errorf("%s: %s is %+v\nwant %+v", table, want.word, rows[want.word], want.row)
		}
	}
	// A cure that is that of the row above is written out.
	if got := Reasons()["reasons of handshakes"]["evicted_share"].Cure; got != "see MAX_HANDSHAKES, and who opens silent connections" {
		t.Errorf("got %q", got)
	}
	for name, rows := range Reasons() {
		for word, r := range rows {
			if word == "" || r.Cause == "" || r.Cure == "" || strings.ContainsAny(word+r.Cause+r.Cure, "`[]|") {
				t.Errorf("%s: %q is %+v", name, word, r)
			}
		}
	}
}
