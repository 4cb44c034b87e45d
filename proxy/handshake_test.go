package proxy

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

// refused counts the handshakes that ended for a reason.
func (h *harness) refused(reason string) (n uint64) {
	for k, v := range h.Stats().Handshakes {
		if k.Reason == reason {
			n += v
		}
	}
	return n
}

func (h *harness) closedFor(reason closeReason) uint64 {
	return h.Stats().SessionsClosed[string(reason)]
}

func (h *harness) wantClosed(reason closeReason, n uint64) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%d sessions closed for %s, have %v", n, reason, h.Stats().SessionsClosed),
		func() bool { return h.closedFor(reason) == n })
}

func dialRaw(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// clientHello records the first flight of a TLS client.
func recordHello(t testing.TB) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go tls.Client(b, testPKI().clientConfig()).Handshake() // ends when its end of the pipe closes
	defer b.Close()
	hello := make([]byte, 16<<10)
	n, err := a.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return hello[:n]
}

// handshakeWith dials with a changed configuration, sends a command and reports how that ended.
func handshakeWith(addr string, change func(*tls.Config)) error {
	conf := testPKI().clientConfig()
	change(conf)
	c, err := tls.Dial("tcp", addr, conf)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, cmd("PING")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 16))
	return err
}

func present(c tls.Certificate) func(*tls.Config) {
	return func(conf *tls.Config) {
		conf.Certificates = nil
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
}

// No client reaches a session, so this stays in one mode.
func TestHandshakeReasons(t *testing.T) {
	p := testPKI()
	other, err := pki.NewCA("another")
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := other.Issue(pki.Leaf{CN: "client", Client: true})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	expired := p.issue(pki.Leaf{CN: "late", Client: true, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-time.Hour)})
	wrongUse := p.issue(pki.Leaf{CN: "server as client", Server: true})
	none := func(c *tls.Config) { c.Certificates = nil }
	// crypto/tls refuses these before any callback of ours runs.
	issued := func(of any) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour)}
		raw, err := x509.CreateCertificate(rand.Reader, template, template, of, p.client.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	followed := func(by []byte) tls.Certificate {
		return tls.Certificate{Certificate: [][]byte{p.client.Certificate[0], by}, PrivateKey: p.client.PrivateKey}
	}
	tooBig := new(big.Int).SetBit(big.NewInt(1), 8200, 1)
	exchange := bytes.Replace(issued(make(ed25519.PublicKey, ed25519.PublicKeySize)), []byte{0x2b, 0x65, 0x70}, []byte{0x2b, 0x65, 0x6e}, 1) // X25519
	unusable := tls.Certificate{Certificate: [][]byte{exchange}, PrivateKey: p.client.PrivateKey}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range []struct {
			reason string
			alert  string
			change func(*tls.Config)
		}{
			{handshakeNoCertificate, "", none},
			{handshakeUnknownCA, "unknown certificate authority", present(foreign)},
			{handshakeExpired, "expired certificate", present(expired)},
			{handshakeBadCert, "bad certificate", present(wrongUse)},
			{handshakeKeyTooBig, "bad certificate", present(followed(issued(&rsa.PublicKey{N: tooBig, E: 65537})))},
			{handshakeBadCert, "decoding", present(followed([]byte{0x30, 0}))},
			{handshakeBadCert, "unsupported certificate", present(unusable)},
			{handshakeClientAlert, "", func(c *tls.Config) { c.RootCAs = nil; c.ServerName = "wrong.example" }},
		} {
			t.Run(tls.VersionName(version)+"/"+tt.reason, func(t *testing.T) {
				t.Parallel()
				h := start(t, "127.0.0.1:1", func(c *Config) {
					if tt.alert == "unsupported certificate" { // certs.Store asks in this way, and verifies later
						c.TLS.ClientAuth = tls.RequireAnyClientCert
					}
				})
				err := handshakeWith(h.addr, func(c *tls.Config) { tt.change(c); c.MaxVersion = version })
				if err == nil || errors.Is(err, syscall.ECONNRESET) || !strings.Contains(err.Error(), tt.alert) {
					t.Errorf("client got %v, want an alert %q", err, tt.alert)
				}
				h.wantRefused(tt.reason)
			})
		}
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			h := start(t, "127.0.0.1:1", nil)
			err := handshakeWith(h.addr, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, version })
			if err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("client got %v, want a protocol version alert", err)
			}
			h.wantRefused(handshakeVersion)
		})
	}
	hello := recordHello(t)
	for _, tt := range []struct{ name, send, reason string }{
		{"RESP", cmd("PING"), handshakePlaintext},
		{"inline", "PING\r\n", handshakePlaintext},
		{"HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", handshakePlaintext},
		{"much plaintext", strings.Repeat(cmd("SET", "k", "v"), 1000), handshakePlaintext},
		{"garbage", "\xff\xfe\xfd\xfc\xfb\xfa", handshakePlaintext},
		{"broken record", "\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff", handshakeOther},
		{"silence", "", handshakeTimeout},
		{"half a ClientHello", string(hello[:len(hello)/2]), handshakeTimeout},
		{"half a record header", "\x16\x03", handshakeTimeout},
		{"vanishes", "-", handshakeClosed},
		{"vanishes behind half a ClientHello", "-" + string(hello[:len(hello)/2]), handshakeClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "127.0.0.1:1", func(c *Config) {
				if tt.reason == handshakeTimeout {
					c.HandshakeTimeout = 100 * time.Millisecond
				}
			})
			c := dialRaw(t, h.addr)
			send, gone := strings.CutPrefix(tt.send, "-")
			io.WriteString(c, send)
			if gone {
				c.Close()
			}
			h.wantRefusedBy(tt.reason, func() {
				if gone {
					return
				}
				c.CloseWrite()
				got, err := io.ReadAll(c)
				if want := string(textPlaintext); tt.reason == handshakePlaintext && (err != nil || string(got) != want) {
					t.Errorf("client got %q (%v), want %q", got, err, want)
				}
			})
		})
	}
}

func (h *harness) wantRefused(reason string) {
	h.t.Helper()
	h.wantRefusedBy(reason, func() {})
}

// wantRefusedBy wants exactly one refused handshake, counted and logged once with its reason.
func (h *harness) wantRefusedBy(reason string, before func()) {
	h.t.Helper()
	if reason == handshakeTimeout {
		eventually(h.t, "the timeout", func() bool { return h.refused(reason) == 1 })
	}
	before()
	eventually(h.t, "no handshake is left", func() bool { return h.pending.len() == 0 && len(h.Stats().Handshakes) > 0 })
	st := h.Stats().Handshakes
	if len(st) != 1 || h.refused(reason) != 1 {
		h.t.Errorf("handshakes %v, want one %s", st, reason)
	}
	if n := strings.Count(h.logs.String(), "handshake refused"); n != 1 {
		h.t.Errorf("logged %d times:\n%s", n, h.logs)
	}
	if !strings.Contains(h.logs.String(), `"reason":"`+reason+`"`) {
		h.t.Errorf("reason %s is not logged:\n%s", reason, h.logs)
	}
}

func TestSilentSocketsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const places, silent = 100, 2000
		h := m.start(t, redisServer(t), func(c *Config) { c.MaxHandshakes = places })
		for range silent / 2 {
			dialRaw(t, h.addr)
		}
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		for range silent / 2 {
			dialRaw(t, h.addr)
		}
		h.dial().do("+PONG\r\n", "PING")
		w.do("+PONG\r\n", "PING")
		eventually(t, "all but the places are evicted", func() bool { return h.refused(handshakeEvicted) >= silent-places })
		if n := h.Stats().Handshaking; n > places {
			t.Errorf("%d sockets without a handshake, want at most %d", n, places)
		}
	})
}

func TestStoppedHandshakesHoldNoPlaceToCompute(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		hello := recordHello(t)
		n := 4 * h.pending.slots
		for range n {
			c := dialRaw(t, h.addr)
			c.Write(hello)
			if _, err := c.Read(make([]byte, 1)); err != nil { // the server's flight: it has computed
				t.Fatal(err)
			}
		}
		if got := h.Stats().Handshaking; got != n {
			t.Fatalf("%d handshakes, want %d", got, n)
		}
		eventually(t, "nobody computes", func() bool { return h.pending.busy() == 0 })
		h.dial().do("+PONG\r\n", "PING")
	})
}

// While all places for handshakes are taken too, a client beyond MAX_CONNECTIONS is closed at once. It takes nobody's place, and does
// not wait for one.
func TestMaxConnectionsWithoutAPlaceForTheHandshake(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.MaxConnections, c.MaxHandshakes, c.HandshakeTimeout = 2, 1, time.Hour })
		a, b := h.dial(), h.dial()
		a.do("+PONG\r\n", "PING")
		b.do("+PONG\r\n", "PING")
		silent := dialRaw(t, h.addr)
		eventually(t, "the place is taken", func() bool { return h.pending.len() == 1 })
		c := dialRaw(t, h.addr)
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d, %v, want a closed socket", n, err)
		}
		if h.refused(handshakeFull) != 1 || len(h.Stats().Handshakes) != 2 {
			t.Errorf("handshakes %v", h.Stats().Handshakes)
		}
		if n := h.limitOf("max_connections").Reached; n != 1 {
			t.Errorf("the limit was reached %d times, want 1", n)
		}
		silent.Close()
		a.do("+PONG\r\n", "PING")
		b.do("+OK\r\n", "QUIT")
		b.wantEnd()
		eventually(t, "a place is free", func() bool { return h.Stats().Sessions == 1 })
		h.dial().do("+PONG\r\n", "PING")
	})
}

// Those that pass accept before the place is taken are refused behind their handshake.
func TestMaxConnectionsHoldsForHandshakesInProgress(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.MaxConnections = 1 })
		var conns []*tls.Conn
		for range 10 {
			conns = append(conns, tls.Client(dialRaw(t, h.addr), testPKI().clientConfig()))
		}
		eventually(t, "all are accepted", func() bool { return h.pending.len() == 10 })
		var wg sync.WaitGroup
		var mu sync.Mutex
		served := 0
		for _, c := range conns {
			wg.Go(func() {
				if _, err := io.WriteString(c, cmd("PING")); err != nil {
					return
				}
				w := newWire(t, c)
				switch got, _ := w.r.ReadString('\n'); got {
				case "+PONG\r\n":
					mu.Lock()
					served++
					mu.Unlock()
				case string(textFull):
					if rest, err := io.ReadAll(w.r); len(rest) > 0 || err != nil {
						t.Errorf("after the error: %q (%v), want close_notify", rest, err)
					}
				default:
					t.Errorf("got %q", got)
				}
			})
		}
		wg.Wait()
		if served != 1 || h.closedFor(closeFull) != 9 {
			t.Errorf("%d served, closed %v, want 1 and 9", served, h.Stats().SessionsClosed)
		}
	})
}

// failingListener gives errors in front of its connections.
type failingListener struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsArePausedAndPass(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		emfile := &net.OpError{Op: "accept", Err: syscall.EMFILE}
		begin := time.Now()
		h := startBehind(t, redisServer(t), m.with(nil), func(ln net.Listener) net.Listener {
			return &failingListener{Listener: ln, errs: []error{emfile, emfile, emfile, emfile}}
		})
		h.dial().do("+PONG\r\n", "PING")
		if n := h.Stats().AcceptErrors; n != 4 {
			t.Errorf("%d accept errors, want 4", n)
		}
		if took := time.Since(begin); took < (5+10+20+40)*time.Millisecond {
			t.Errorf("no pauses: served after %v", took)
		}
	})
}

// A TLS 1.2 client may ask for another handshake; that is refused.
func TestRenegotiationIsRefused(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		good := h.dial()
		raw := &rawRecorder{Conn: dialRaw(t, h.addr)}
		conf := testPKI().clientConfig()
		conf.MaxVersion = tls.VersionTLS12
		c := tls.Client(raw, conf)
		w := newWire(t, c)
		w.do("+PONG\r\n", "PING")
		// A ClientHello in clear is not what the record layer expects here: its MAC does not fit.
		raw.Conn.Write(raw.first)
		if got := w.wantEnd(); got != "" {
			t.Errorf("got %q", got)
		}
		h.wantClosed(closeClientError, 1)
		good.do("+PONG\r\n", "PING")
	})
}

// rawRecorder keeps the first write.
type rawRecorder struct {
	net.Conn
	first []byte
}

func (r *rawRecorder) Write(b []byte) (int, error) {
	if r.first == nil {
		r.first = append([]byte(nil), b...)
	}
	return r.Conn.Write(b)
}

// keyUpdates makes n KeyUpdate records that ask for one in return, from the client's first traffic secret.
func keyUpdates(t testing.TB, secret []byte, n int) (flood []byte) {
	t.Helper()
	expand := func(secret []byte, label string, length int) []byte {
		label = "tls13 " + label
		info := append([]byte{0, byte(length), byte(len(label))}, label...)
		out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), length)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for range n {
		block, err := aes.NewCipher(expand(secret, "key", 16))
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		inner := []byte{24, 0, 0, 1, 1, 22} // key_update, update_requested; a handshake record
		header := []byte{23, 3, 3, 0, byte(len(inner) + gcm.Overhead())}
		flood = append(flood, header...)
		flood = gcm.Seal(flood, expand(secret, "iv", 12), inner, header) // each key's first record: its nonce is the IV
		secret = expand(secret, "traffic upd", 32)
	}
	return flood
}

func TestKeyUpdateFloodEndsOneSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) {
			c.TLS.MinVersion = tls.VersionTLS13
		})
		good := h.dial()
		for _, n := range []int{1, 10000} {
			var keys bytes.Buffer
			raw := dialRaw(t, h.addr)
			conf := testPKI().clientConfig()
			conf.KeyLogWriter = &keys
			c := tls.Client(raw, conf)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
				t.Skip("the flood is made for AES-128-GCM, which this machine does not prefer")
			}
			_, rest, _ := strings.Cut(keys.String(), "CLIENT_TRAFFIC_SECRET_0 ")
			line, _, _ := strings.Cut(rest, "\n")
			secret, err := hex.DecodeString(strings.Fields(line)[1])
			if err != nil {
				t.Fatal(err)
			}
			before := h.closedFor(closeClientError)
			raw.Write(keyUpdates(t, secret, n)) // fails behind the end, and nothing is read
			if n == 1 {
				// It is answered in kind, and the session lives.
				eventually(t, "the session", func() bool { return h.Stats().Sessions == 2 })
				raw.Close()
				eventually(t, "its end", func() bool { return h.Stats().Sessions == 1 })
				continue
			}
			eventually(t, "the flood's end", func() bool { return h.closedFor(closeClientError) == before+1 })
		}
		good.do("+PONG\r\n", "PING")
	})
}

// A client that takes nothing of the server's flight has until HANDSHAKE_TIMEOUT, and costs no place of those that compute.
// No client reaches a session, so this stays in one mode.
func TestHandshakeThatBlocksInAWriteEndsInTime(t *testing.T) {
	t.Parallel()
	var all *gates
	h := startBehind(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) {
		c.HandshakeTimeout, c.WriteTimeout = time.Hour, 24*time.Hour
	}, func(ln net.Listener) net.Listener {
		all = newGates(t, ln)
		all.shut = true
		return all
	})
	w := newWire(t, dialRaw(t, h.addr))
	var client sync.WaitGroup
	client.Go(func() { tls.Client(w.Conn, testPKI().clientConfig()).Handshake() })
	defer client.Wait()
	eventually(t, "its flight waits", func() bool { gate := all.of(w); return gate != nil && gate.Waited() == 1 })
	if waiting, busy := h.pending.len(), h.pending.busy(); waiting != 1 || busy != 0 {
		t.Errorf("%d handshakes, of which %d compute", waiting, busy)
	}
	all.of(w).Pass(2 * time.Hour)
	eventually(t, "its time is over", func() bool { return h.refused(handshakeTimeout) == 1 })
}
