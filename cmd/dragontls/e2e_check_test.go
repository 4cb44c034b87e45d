//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/certs"
	"dragontls/certs/pki"
)

// What check finds that would hurt later, and what probe can tell of an endpoint.

func TestCheckFindsWhatIsTrusted(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(d *deployment)
		want  []string
		part  string // in the message or the cure of one of them
	}{
		{"no CRL", func(d *deployment) { delete(d.vars, "TLS_CRL_FILE") }, []string{"no_revocation"}, "CRLs of the client CAs"},
		{"a missing intermediate without --host", func(d *deployment) {
			root := newCA(d.t, "root")
			cert, key, err := between(d.t, root).Issue(serverLeaf())
			if err != nil {
				d.t.Fatal(err)
			}
			end := strings.Index(string(cert), "-----END CERTIFICATE-----\n") + len("-----END CERTIFICATE-----\n")
			crl, err := root.CRL(pki.CRLOptions{})
			if err != nil {
				d.t.Fatal(err)
			}
			write(d.t, d.path("server.crt"), cert[:end])
			write(d.t, d.path("server.key"), key)
			write(d.t, d.path("ca.crt"), root.PEM())
			write(d.t, d.path("ca.crl"), crl)
		}, []string{"chain_not_verified"}, `append its certificate to the file`},
		{"a digest of no CA in ALLOW", func(d *deployment) {
			d.vars["ALLOW"] = "cn:web,ca:sha256/" + strings.Repeat("0a", 32)
		}, []string{"ca_digest_unknown"}, "openssl x509"},
		{"a digest of no CA in the users file", func(d *deployment) {
			d.vars["USERS_FILE"] = d.file("users.yaml", "users:\n  - match: [\"ca:sha256/"+strings.Repeat("0a", 32)+"\"]\n    user: a\n    password_file: p\n", 0o644)
			d.file("p", "secret", 0o600)
		}, []string{"ca_digest_unknown"}, "no CA of the bundle"},
		{"the key of the CA in the bundle", func(d *deployment) {
			d.file("both.pem", content(d.t, d.path("ca.crt"))+content(d.t, d.path("ca.key")), 0o600)
			d.vars["TLS_CLIENT_CA_FILE"] = d.path("both.pem")
		}, []string{"key_in_bundle"}, "no passphrase"},
		{"the key of the server in its certificate file too", func(d *deployment) {
			d.file("server.crt", content(d.t, d.path("server.crt"))+content(d.t, d.path("server.key")), 0o644)
		}, []string{"key_mode"}, "mode 0644"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeployment(t)
			c.setup(d)
			r := d.wantFound(c.want, "--no-backend")
			if !slices.ContainsFunc(r.Findings, func(f certs.Finding) bool { return strings.Contains(f.Message+"\n"+f.Cure, c.part) }) {
				t.Errorf("got %+v, want %q", r.Findings, c.part)
			}
		})
	}
}

// One round is enough to learn all that is wrong with variables, files, patterns and users.
func TestEveryFaultIsToldInOneRound(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.vars["LISTEN"] = "nonsense"
	d.vars["LISTENN"] = ":1"
	d.vars["BACKEND_URL"], d.vars["BACKEND_PASSWORD_FILE"] = "http://x", d.file("empty", "", 0o600)
	d.vars["TLS_MIN_VERSION"], d.vars["TLS_OCSP"] = "1.1", "/no/such/ocsp"
	d.vars["TLS_CERT_FILE"] = d.path("server.crt") + "," + d.path("gone1.crt") + "," + d.path("gone2.crt")
	d.vars["TLS_KEY_FILE"] = d.path("client.key") + "," + d.path("server.key") + "," + d.path("server.key")
	d.vars["TLS_CLIENT_CA_FILE"] = d.path("client.crt")
	d.vars["TLS_TICKET_KEYS_FILE"] = d.file("tickets", "short", 0o600)
	d.vars["ALLOW"], d.vars["ALLOW_FILE"] = "cm:web", d.file("allow", "cn:a\nxn:b\n", 0o644)
	d.vars["USERS_FILE"] = d.file("users.yaml", "users:\n  - match: [\"cn:a\"]\n    user: a\n    password: p\n", 0o644)
	want := []string{
		`DRAGONTLS_LISTEN="nonsense"`, "DRAGONTLS_LISTENN", "DRAGONTLS_BACKEND_URL (hidden)", "DRAGONTLS_BACKEND_PASSWORD_FILE", "DRAGONTLS_TLS_MIN_VERSION",
		"DRAGONTLS_TLS_OCSP", "(entry 2)", "(entry 3)", "client.key\": the key belongs to another certificate",
		"client.crt\"", "tickets", `DRAGONTLS_ALLOW: pattern "cm:web"`, `allow": line 2`, "users.yaml:4",
	}
	for _, command := range []string{"serve", "check"} {
		got := invoke(append(d.env(), "DRAGONTLS_LOG_FORMAT=console"), command)
		if got.code != exitConfig {
			t.Errorf("%s: got exit code %d", command, got.code)
		}
		wantParts(t, got.stderr, want...)
		if strings.Contains(got.stderr, `read "`+d.path("gone1.crt")) {
			t.Errorf("%s: the missing file is told twice:\n%s", command, got.stderr)
		}
	}
}

func TestProbeDoesNotBlameTheClientForAnExpiredCRL(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "root")
	crl, err := ca.CRL(pki.CRLOptions{ThisUpdate: time.Now().Add(-48 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "ca.crl")
	write(t, list, crl)
	p := ownCA(t, ca, redisServer(t).url(), "TLS_CRL_FILE="+list)
	cert, key := pair(t, ca, pki.Leaf{CN: "c", Client: true})
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	write(t, caFile, ca.PEM())
	r := probing(t, p.addr, "--servername", "localhost", "--ca", caFile, "--cert", cert, "--key", key)
	r.wantOnly(t, "PING")
	r.wantCheck(t, "PING", probeFail, "which is in date and for clients")
	r.wantCheck(t, "PING", probeFail, "its own CRL is missing or has expired (no_crl, crl_expired), which is to be mended there")

	// What is the client's fault is said to be.
	for what, l := range map[string]pki.Leaf{
		"it expired on":            {CN: "c", Client: true, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)},
		"it is not valid before":   {CN: "c", Client: true, NotBefore: time.Now().Add(time.Hour)},
		"is not issued for client": {CN: "c", Server: true},
	} {
		cert, key := pair(t, ca, l)
		probing(t, p.addr, "--servername", "localhost", "--ca", caFile, "--cert", cert, "--key", key).wantCheck(t, "PING", probeFail, what)
	}
	p.wantEnd()
}

func TestCheckSaysNothingOfAKeyThatIsNamed(t *testing.T) {
	d := newDeployment(t)
	both := d.file("both.pem", fmt.Sprint(content(t, d.path("server.crt")), content(t, d.path("server.key"))), os.FileMode(0o600))
	d.vars["TLS_CERT_FILE"], d.vars["TLS_KEY_FILE"] = both, both
	d.wantFound(nil, "--no-backend")
}
