package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/clock"
	"dragontls/proxy/limit"
)

// refusedLine waits for the only line about a refused handshake.
func (h *harness) refusedLine() map[string]any {
	h.t.Helper()
	eventually(h.t, "a refused handshake is logged", func() bool { return len(h.linesWith("message", "handshake refused")) > 0 })
	return h.linesWith("message", "handshake refused")[0]
}

// The line about a refused handshake says whose certificate was shown, and for which name.
func TestRefusedHandshakeSaysWho(t *testing.T) {
	t.Parallel()
	other, err := pki.NewCA("another")
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := other.Issue(pki.Leaf{
		CN: "mallory", Client: true, DNS: []string{"m.example"}, URIs: []string{"spiffe://prod/m"},
		Emails: []string{"m@corp.example"}, IPs: []net.IP{net.IPv4(10, 0, 0, 7)},
	})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(foreign.Leaf.Raw)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		// certs.Store lets crypto/tls verify nothing, and verifies in VerifyConnection.
		for _, by := range []string{"crypto/tls", "VerifyConnection"} {
			t.Run(tls.VersionName(version)+" by "+by, func(t *testing.T) {
				t.Parallel()
				h := start(t, "127.0.0.1:1", func(c *Config) {
					if by == "VerifyConnection" {
						c.TLS.ClientAuth = tls.RequireAnyClientCert
						c.TLS.VerifyConnection = func(tls.ConnectionState) error { return lostError(handshakeUnknownCA) }
					}
				})
				if err := handshakeWith(h.addr, func(c *tls.Config) { present(foreign)(c); c.MaxVersion = version }); err == nil {
					t.Fatal("it was let in")
				}
				line := h.refusedLine()
				for field, want := range map[string]any{
					"reason": handshakeUnknownCA, "subject": "CN=mallory", "issuer": "CN=another", "serial": foreign.Leaf.SerialNumber.Text(16),
					"sha256": hex.EncodeToString(sum[:]), "sni": "localhost",
				} {
					if line[field] != want {
						t.Errorf("%s: got %v, want %v", field, line[field], want)
					}
				}
				if got := fmt.Sprint(line["sans"]); got != "[dns:m.example uri:spiffe://prod/m email:m@corp.example ip:10.0.0.7]" {
					t.Errorf("sans: got %s", got)
				}
			})
		}
	}
}

// Whatever a client writes into its certificate and its ClientHello, the line stays short and on one line, and holds no character that
// changes how a terminal shows it.
func TestRefusedHandshakeIsCleanedAndBounded(t *testing.T) {
	t.Parallel()
	other, err := pki.NewCA("another\x1b]0;title\a" + strings.Repeat("\u202e", 500))
	if err != nil {
		t.Fatal(err)
	}
	l := pki.Leaf{CN: "evil\x1b[31m\r\n{\"level\":\"fatal\"}\u2028" + strings.Repeat("x", 600), Client: true}
	for i := range 100 {
		l.DNS = append(l.DNS, fmt.Sprintf("host-%d.%s.example", i, strings.Repeat("y", 50)))
	}
	certPEM, keyPEM, err := other.Issue(l)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	h := start(t, "127.0.0.1:1", nil)
	if err := handshakeWith(h.addr, present(strange)); err == nil {
		t.Fatal("it was let in")
	}
	line := h.refusedLine()
	subject, _ := line["subject"].(string)
	if !strings.HasPrefix(subject, "CN=evil?[31m??") || !strings.HasSuffix(subject, "...") {
		t.Errorf("subject %q", subject)
	}
	sans, _ := line["sans"].([]any)
	if len(sans) != maxShownSANs || line["more_sans"] != float64(100-maxShownSANs) {
		t.Errorf("%d SANs and %v more", len(sans), line["more_sans"])
	}
	for field, value := range line {
		for _, text := range append([]any{value}, sans...) {
			s, ok := text.(string)
			if ok && field != "error" && (len(s) > maxShownName || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '\u202e' || r == '\u2028' })) {
				t.Errorf("%s: %q", field, s)
			}
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"plain", "plain"}, {"Zürich", "Zürich"}, {"a\xffb\x00c\x7f", "a?b?c?"}, {strings.Repeat("a", maxShownName), strings.Repeat("a", maxShownName)},
		{strings.Repeat("a", maxShownName+1), strings.Repeat("a", maxShownName-3) + "..."},
	} {
		if got := shownText(tt.text); got != tt.want {
			t.Errorf("%q is shown as %q, want %q", tt.text, got, tt.want)
		}
	}
	if got := shownText(strings.Repeat("ü", maxShownName)); len(got) > maxShownName {
		t.Errorf("%d bytes are shown", len(got))
	}
}

// Versions and cipher suites have names in the log.
func TestRefusedHandshakeNamesWhatWasOffered(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reason string
		server func(*Config)
		client func(*tls.Config)
		want   string
		text   string
	}{
		{handshakeVersion, nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
			"[TLS 1.1 TLS 1.0]", "tls: client offered only unsupported versions"},
		{handshakeCipher, func(c *Config) { c.TLS.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} },
			func(c *tls.Config) {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
			},
			"[TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]", "tls: no cipher suite supported by both client and server; client offered"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			t.Parallel()
			h := start(t, "127.0.0.1:1", tt.server)
			if err := handshakeWith(h.addr, tt.client); err == nil {
				t.Fatal("it was let in")
			}
			line := h.refusedLine()
			if line["reason"] != tt.reason || fmt.Sprint(line["offered"]) != tt.want || line["error"] != tt.text {
				t.Errorf("logged %v, want %s and %s", line, tt.want, tt.text)
			}
		})
	}
}

// A certificate that is not valid yet is not one that has expired: the cure is another.
func TestCertificateThatIsNotValidYetHasAReasonOfItsOwn(t *testing.T) {
	t.Parallel()
	early := testPKI().issue(pki.Leaf{CN: "early", Client: true, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)})
	h := start(t, "127.0.0.1:1", nil)
	if err := handshakeWith(h.addr, present(early)); err == nil {
		t.Fatal("it was let in")
	}
	h.wantRefused(handshakeNotYetValid)
	if line := h.refusedLine(); line["subject"] != "CN=early" {
		t.Errorf("logged %v", line)
	}
	eachMode(t, func(t *testing.T, m mode) { // a live session ends for the same reason
		j := &judgement{}
		h := m.start(t, redisServer(t), func(c *Config) { c.Recheck = j.recheck })
		w := h.dialAs("web")
		w.do("+PONG\r\n", "PING")
		j.set(func(j *judgement) { j.lost = map[string]string{"web": handshakeNotYetValid} })
		h.Recheck()
		w.wantEnd()
		h.wantClosed(closeNotYetValid, 1)
	})
}

// However many handshakes are refused, the log has MaxLinesOfOne of a reason and an address in a second, and then how many more
// there were. Another reason has its own lines.
func TestRefusedHandshakesDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	const tries = 60
	var stopped clock.Atomic
	h := start(t, "127.0.0.1:1", func(c *Config) { swept(c); c.clock = stopped.Load })
	refuse := func(n int, from net.IP) {
		t.Helper()
		before := h.refused(handshakePlaintext)
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
		for range n {
			c, err := d.Dial("tcp", h.addr)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(patience))
			c.Write([]byte("PING\r\n"))
			io.Copy(io.Discard, c) // a client that leaves first is refused for another reason
			c.Close()
		}
		eventually(t, "all are refused", func() bool { return h.refused(handshakePlaintext) == before+uint64(n) })
	}
	refuse(tries, net.IPv4(127, 0, 0, 1))
	refuse(1, net.IPv4(127, 0, 0, 2))
	if err := handshakeWith(h.addr, func(c *tls.Config) { c.Certificates = nil }); err == nil {
		t.Fatal("it was let in")
	}
	eventually(t, "the other reason is logged", func() bool { return len(h.linesWith("reason", handshakeNoCertificate)) == 1 })
	stopped.Store(stopped.Load().Add(time.Second)) // the sweeper may just have told of some of them
	eventually(t, "the others are counted", func() bool { return h.more(handshakePlaintext) == tries-limit.MaxLinesOfOne })
	if n := len(h.linesWith("message", "handshake refused")); n != limit.MaxLinesOfOne+2 {
		t.Errorf("%d lines, want %d, one of the other address and one of the other reason", n, limit.MaxLinesOfOne)
	}
}

// more adds up how many handshakes, or commands, the log has only counted.
func (h *harness) more(reason string) (n uint64) {
	h.t.Helper()
	for _, field := range []string{"reason", "by"} {
		for _, line := range h.linesWith(field, reason) {
			if more, ok := line["more"].(float64); ok {
				n += uint64(more)
			}
		}
	}
	return n
}
