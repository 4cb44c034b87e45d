package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// behindBalancer has all peers of loopback send headers.
func behindBalancer(c *Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// headerV2 is a header of version 2 with a body. family is of the kind AF_INET + STREAM: 0x11.
func headerV2(command, family byte, body string) string {
	b := append([]byte(nil), proxyproto.SIGV2...)
	b = append(b, 0x20|command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return string(b) + body
}

const (
	bodyV4   = "\xcb\x00\x71\x07" + "\x0a\x00\x00\x01" + "\x12\x34" + "\x18\xec" // 203.0.113.7:4660 to 10.0.0.1:6380
	bodyV6   = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x12\x34" + "\x18\xec"
	anExtra  = "\xe2\x00\x03abc" // a TLV
	clientV4 = "203.0.113.7:4660"
	clientV6 = "[2001:db8::9]:4660"
)

// goodHeaders and the client that each names; empty: the peer itself.
var goodHeaders = map[string]struct{ header, client string }{
	"v1 TCP4":                {"PROXY TCP4 203.0.113.7 10.0.0.1 4660 6380\r\n", clientV4},
	"v1 TCP6":                {"PROXY TCP6 2001:db8::9 2001:db8::1 4660 6380\r\n", clientV6},
	"v1 UNKNOWN":             {"PROXY UNKNOWN\r\n", ""},
	"v1 UNKNOWN with more":   {"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", ""},
	"v2 IPv4":                {headerV2(1, 0x11, bodyV4), clientV4},
	"v2 IPv4 with extension": {headerV2(1, 0x11, bodyV4+anExtra), clientV4},
	"v2 IPv6":                {headerV2(1, 0x21, bodyV6), clientV6},
	"v2 longest":             {headerV2(1, 0x11, bodyV4+"\xe2\x0f\xe1"+strings.Repeat("x", maxProxyHeader-v2Fixed-len(bodyV4)-3)), clientV4},
	"v2 LOCAL":               {headerV2(0, 0x00, ""), ""},
	"v2 LOCAL with address":  {headerV2(0, 0x11, bodyV4), ""},
	"v2 UNSPEC":              {headerV2(1, 0x00, ""), ""},
	"v2 UNSPEC with more":    {headerV2(1, 0x00, "anything"), ""},
	"v2 unix":                {headerV2(1, 0x31, strings.Repeat("/", 216)), ""},
}

var badHeaders = map[string]string{
	"no header":              "\x16\x03\x01\x00\xc8\x01",
	"plain RESP":             "*1\r\n$4\r\nPING\r\n",
	"v1 another word":        "PRIXY TCP4 203.0.113.7 10.0.0.1 4660 6380\r\n",
	"v1 without an end":      "PROXY TCP4 " + strings.Repeat("1", 200),
	"v1 bare LF":             "PROXY TCP4 203.0.113.7 10.0.0.1 4660 6380\n",
	"v1 a name":              "PROXY TCP4 hunter2 10.0.0.1 4660 6380\r\n",
	"v1 a port too large":    "PROXY TCP4 203.0.113.7 10.0.0.1 hunter2 6380\r\n",
	"v2 broken signature":    "\r\n\r\n\x00\r\nQUIX\n" + headerV2(1, 0x11, bodyV4)[12:],
	"v2 version 1":           strings.Replace(headerV2(1, 0x11, bodyV4), "\x21\x11", "\x11\x11", 1),
	"v2 another command":     headerV2(7, 0x11, bodyV4),
	"v2 another family":      headerV2(1, 0x77, bodyV4),
	"v2 too short for IPv6":  headerV2(1, 0x21, bodyV4),
	"v2 longer than allowed": headerV2(1, 0x11, strings.Repeat("x", maxProxyHeader-v2Fixed+1)),
}

// beyond is a client behind a balancer that sends this header. The ClientHello follows in the same segment if joined is true.
func (h *harness) beyond(header string, joined bool) *wire {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	if joined {
		c = &headed{Conn: c, header: header}
	} else if _, err := io.WriteString(c, header); err != nil {
		h.t.Fatal(err)
	}
	w := tls.Client(c, testPKI().clientConfig())
	if err := w.Handshake(); err != nil {
		h.t.Fatal(err)
	}
	return newWire(h.t, w)
}

// headed writes a header together with what is written first.
type headed struct {
	net.Conn
	header string
}

func (c *headed) Write(b []byte) (int, error) {
	header := c.header
	c.header = ""
	n, err := c.Conn.Write(append([]byte(header), b...))
	return max(0, n-len(header)), err
}

// remotes are the addresses of the clients of all sessions.
func (h *harness) remotes() (all []string) {
	h.each(func(s *session) { all = append(all, s.client.sock.RemoteAddr().String()) })
	return all
}

func TestClientBehindABalancerCountsAsThePeer(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) {
			behindBalancer(c)
			c.Audit.Level, c.Audit.Log = AuditConnections, c.Log
		})
		for name, tt := range goodHeaders {
			for _, joined := range []bool{false, true} {
				w := h.beyond(tt.header, joined)
				w.do("+PONG\r\n", "PING")
				want := tt.client
				if want == "" {
					want = w.LocalAddr().String()
				}
				if got := h.remotes(); len(got) != 1 || got[0] != want {
					t.Errorf("%s: sessions of %v, want %s", name, got, want)
				}
				eventually(t, name+": nothing is counted for records, as if the header were one", func() bool {
					counted := int64(0)
					h.each(func(s *session) { counted += s.account().Held() + s.account().Kept() })
					return counted == 0
				})
				w.Close()
				eventually(t, "it is gone, and the audit log names the client", func() bool {
					return h.open() == 0 && strings.Contains(h.logs.String(), `"remote":"`+want+`"`)
				})
			}
		}
		if n := h.pending.len(); n != 0 {
			t.Errorf("%d places are taken", n)
		}
	})
}

func TestHeaderMayComeByteByByte(t *testing.T) {
	t.Parallel()
	for name, tt := range goodHeaders {
		text := tt.header + "rest"
		r := strings.NewReader(text)
		b, err := takeProxyHeader(iotest.OneByteReader(r))
		if err != nil || string(b) != tt.header || r.Len() != len("rest") {
			t.Errorf("%s: took %q (%v), and left %d bytes", name, b, err, r.Len())
		}
		for cut := range len(tt.header) {
			if _, err := takeProxyHeader(strings.NewReader(text[:cut])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut after %d bytes: got %v", name, cut, err)
			}
		}
	}
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), behindBalancer)
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).SetNoDelay(true)
		for _, b := range []byte(goodHeaders["v2 IPv6"].header) {
			c.Write([]byte{b})
		}
		w := newWire(t, tls.Client(c, testPKI().clientConfig()))
		w.do("+PONG\r\n", "PING")
		if got := h.remotes(); len(got) != 1 || got[0] != clientV6 {
			t.Errorf("sessions of %v", got)
		}
	})
}

func TestBadHeadersAreRefused(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), behindBalancer)
	n := uint64(0)
	for name, header := range badHeaders {
		w := dialPlain(t, h.addr)
		w.send(header)
		if got := w.wantEnd(); got != "" {
			t.Errorf("%s: answered %q", name, got)
		}
		n++
		eventually(t, name+" is refused", func() bool { return h.Stats().Handshakes[HandshakeKey{Reason: handshakeProxyHeader}] == n })
	}
	if logs := h.logs.String(); !strings.Contains(logs, `"reason":"proxy_header","remote":"127.0.0.1:`) || strings.Contains(logs, "hunter2") {
		t.Errorf("log:\n%s", logs)
	}
	// A client that is told why it speaks to a TLS port is behind the balancer.
	w := dialPlain(t, h.addr)
	w.send(goodHeaders["v1 TCP4"].header + cmd("PING"))
	w.want(string(textPlaintext))
	eventually(t, "the log names client and balancer", func() bool {
		return strings.Contains(h.logs.String(), `"reason":"plaintext","remote":"`+clientV4+`","balancer":"127.0.0.1:`)
	})
}

// A peer that is no balancer cannot claim an address.
func TestHeaderFromElsewhereIsNoTLS(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")} })
	for _, header := range []string{goodHeaders["v1 TCP4"].header, goodHeaders["v2 IPv4"].header} {
		w := dialPlain(t, h.addr)
		w.send(header)
		w.want(string(textPlaintext))
	}
	h.dial().do("+PONG\r\n", "PING")
	if got := h.Stats().Handshakes[HandshakeKey{Reason: handshakePlaintext}]; got != 2 {
		t.Errorf("%d are refused as plaintext", got)
	}
}

// A health check that only connects, or says LOCAL, and leaves is not worth a line.
func TestHealthChecksOfABalancerAreNoWarning(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), behindBalancer)
	for i, sent := range []string{"", goodHeaders["v2 LOCAL"].header, goodHeaders["v1 UNKNOWN"].header} {
		for j, leave := range []func(*net.TCPConn){
			func(c *net.TCPConn) { c.Close() },
			func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		} {
			c, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, sent)
			leave(c.(*net.TCPConn))
			eventually(t, "it is counted", func() bool { return h.Stats().Handshakes[HandshakeKey{Reason: handshakeClosed}] == uint64(2*i+j+1) })
		}
	}
	for line := range strings.Lines(h.logs.String()) {
		if strings.Contains(line, "handshake refused") && !strings.Contains(line, `"level":"debug"`) {
			t.Errorf("logged: %s", line)
		}
	}
}

// The header counts towards the time of the handshake.
func TestHeaderThatTricklesTimesOut(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) {
		behindBalancer(c)
		c.HandshakeTimeout = 20 * time.Millisecond
	})
	w := dialPlain(t, h.addr)
	w.send("PROXY TCP4 ")
	if got := w.wantEnd(); got != "" {
		t.Errorf("got %q", got)
	}
	eventually(t, "it is counted", func() bool { return h.Stats().Handshakes[HandshakeKey{Reason: handshakeTimeout}] == 1 })
}

// Until its header has come a socket takes a place of the balancer's share, and then of its client's.
func TestPlacesBelongToTheClientBehindABalancer(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) {
		behindBalancer(c)
		c.HandshakeTimeout, c.MaxHandshakes = time.Hour, 100
	})
	held := func(from string) int {
		h.pending.mu.Lock()
		defer h.pending.mu.Unlock()
		if o := h.pending.origins[netip.MustParsePrefix(from)]; o != nil {
			return o.held
		}
		return 0
	}
	w := dialPlain(t, h.addr)
	eventually(t, "the balancer has a place", func() bool { return held("127.0.0.1/32") == 1 })
	w.send(goodHeaders["v2 IPv4"].header)
	eventually(t, "the client has it", func() bool { return held("127.0.0.1/32") == 0 && held("203.0.113.7/32") == 1 })
	other := dialPlain(t, h.addr)
	other.send(goodHeaders["v2 IPv6"].header)
	eventually(t, "another one too", func() bool { return held("2001:db8::/64") == 1 && held("127.0.0.1/32") == 0 })
	w.Close()
	other.Close()
	eventually(t, "all places are free", func() bool { return h.pending.len() == 0 && held("203.0.113.7/32") == 0 })
}

func TestReassignedPlacesStayConsistent(t *testing.T) {
	t.Parallel()
	p := newPlaces(8, 2)
	var all []*handshake
	for range 8 {
		h, _ := p.placed(t, 1, stageHello)
		all = append(all, h)
	}
	for i, h := range all {
		p.reassign(h, addressOf(2+i%2))
		p.consistent(t)
	}
	// Two addresses hold more than their share of two: a newcomer of a third one takes from them.
	h, loser := p.placed(t, 9, stageHello)
	if h == nil || loser == nil || p.lostBy(loser) != handshakeEvictedShare {
		t.Fatalf("%v has lost its place", loser)
	}
	p.reassign(loser, addressOf(4)) // it has none any more
	p.consistent(t)
	if loser.from != addressOf(4) {
		t.Error("the lines of its log are not the client's")
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, tt := range goodHeaders {
		f.Add([]byte(tt.header))
	}
	for _, header := range badHeaders {
		f.Add([]byte(header))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := bytes.NewReader(in)
		b, err := takeProxyHeader(whole)
		read := len(in) - whole.Len()
		if read > maxProxyHeader {
			t.Fatalf("read %d bytes", read)
		}
		parts := bytes.NewReader(in)
		again, errAgain := takeProxyHeader(iotest.HalfReader(parts))
		if !bytes.Equal(b, again) || (err == nil) != (errAgain == nil) || parts.Len() != whole.Len() {
			t.Fatalf("in parts: %q (%v), want %q (%v)", again, errAgain, b, err)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(b, in[:read]) {
			t.Fatalf("took %q of %q", b, in)
		}
		client, err := parseProxyHeader(b)
		if err != nil && (client.IsValid() || !isProxyHeaderError(err)) {
			t.Fatalf("%v and %v", client, err)
		}
		if client.IsValid() && client.Addr().Zone() != "" {
			t.Fatalf("a zone: %v", client)
		}
	})
}
