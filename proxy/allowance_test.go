package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// handshakeRecords are n bytes of one handshake message that claims to be longer.
func handshakeRecords(kind byte, n int) []byte {
	message := append([]byte{kind, 0, 0xf0, 0}, bytes.Repeat([]byte{0}, n)...)
	var records []byte
	for len(message) > 0 {
		size := min(len(message), 1024)
		records = append(records, 22, 3, 3, byte(size>>8), byte(size))
		records = append(records, message[:size]...)
		message = message[size:]
	}
	return records
}

func TestAHandshakeReadsNoMoreThanItNeeds(t *testing.T) {
	t.Parallel()
	const clientHello, certificate = 1, 11
	for name, c := range map[string]struct {
		flood func(t *testing.T, conn net.Conn)
	}{
		"half a ClientHello": {func(t *testing.T, conn net.Conn) {
			_, _ = conn.Write(handshakeRecords(clientHello, 2*maxFlightBytes)[:2*maxFlightBytes])
		}},
		"half a Certificate": {func(t *testing.T, conn net.Conn) {
			conf := testPKI().clientConfig()
			conf.MaxVersion = tls.VersionTLS12
			flood := &floodingConn{Conn: conn, with: handshakeRecords(certificate, 2*maxFlightBytes)}
			_ = tls.Client(flood, conf).Handshake()
			if flood.writes < 2 {
				t.Error("the handshake did not get that far")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, m mode) {
				h := m.start(t, "127.0.0.1:1", func(c *Config) { c.HandshakeTimeout = time.Minute })
				c.flood(t, dialRaw(t, h.addr))
				h.wantRefused(handshakeTooBig)
			})
		})
	}
}

// floodingConn writes its client's first flight, and something else for the others.
type floodingConn struct {
	net.Conn
	with   []byte
	writes int
}

func (c *floodingConn) Write(b []byte) (int, error) {
	c.writes++
	if c.writes == 1 {
		return c.Conn.Write(b)
	}
	return c.Conn.Write(c.with)
}

func TestAllowance(t *testing.T) {
	t.Parallel()
	var a allowance
	for flight := 0; ; flight++ {
		read := 0
		for a.check() == nil {
			n := min(a.room(), 1000)
			if n <= 0 {
				t.Fatal("nothing may be read, and nothing is wrong")
			}
			a.took(n)
			read += n
		}
		tooBig, _ := errors.AsType[*tooBigError](a.check())
		if flight == 2 {
			if tooBig.limit != maxHandshakeBytes || a.read != maxHandshakeBytes || read != maxHandshakeBytes-2*maxFlightBytes {
				t.Errorf("%d bytes in the last flight and %d in all: %v", read, a.read, tooBig)
			}
			return
		}
		if tooBig.limit != maxFlightBytes || read != maxFlightBytes {
			t.Errorf("flight %d has %d bytes: %v", flight, read, tooBig)
		}
		a.answered()
	}
}

// The largest chain that a client may have is in its ticket too: with a HelloRetryRequest, and a ticket that is not
// accepted, it comes three times.
func TestTheLargestHonestHandshakeIsWithinTheAllowance(t *testing.T) {
	t.Parallel()
	const largestChain = 9 << 10 // certs.maxSentBytes
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("%s.%03d.example", strings.Repeat("a", 60), i))
	}
	client := testPKI().issue(pki.Leaf{CN: "client", Client: true, DNS: names})
	for len(client.Certificate) < 2 || len(client.Certificate[0])+len(client.Certificate[1]) < largestChain {
		names = append(names, "a.example")
		more := testPKI().issue(pki.Leaf{CN: "more", Client: true, DNS: names})
		client.Certificate = [][]byte{client.Certificate[0], more.Certificate[0]}
	}
	h := start(t, redisServer(t), func(c *Config) {
		c.TLS.ClientAuth = tls.RequireAnyClientCert
		c.TLS.CurvePreferences = []tls.CurveID{tls.CurveP384} // the client's first guess is another
		c.TLS.SetSessionTicketKeys([][32]byte{{1}})
	})
	conf := testPKI().clientConfig()
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	conf.Certificates = []tls.Certificate{client}
	connect := func() *tls.Conn {
		c, err := tls.Dial("tcp", h.addr, conf)
		if err != nil {
			t.Fatal(err)
		}
		newWire(t, c).do("+PONG\r\n", "PING") // with it comes the ticket
		return c
	}
	if connect().ConnectionState().DidResume || !connect().ConnectionState().DidResume {
		t.Error("the second handshake is not the one resumed")
	}
	h.tls.SetSessionTicketKeys([][32]byte{{2}})
	if connect().ConnectionState().DidResume {
		t.Error("resumed with a ticket of another key")
	}
}
