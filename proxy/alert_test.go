package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// splitAlert sends the beginning of an alert together with what comes before it, and the rest when the peer has read that.
type splitAlert struct {
	*net.TCPConn
	peer func() syscall.Conn
	held []byte
	hold bool
}

func (c *splitAlert) Write(b []byte) (int, error) {
	if !c.hold {
		return c.TCPConn.Write(b)
	}
	if b[0] != 21 {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	c.TCPConn.Write(append(c.held, b[:3]...))
	peer := c.peer()
	for unacknowledged(c.TCPConn) > 0 || unread(peer) > 0 {
		runtime.Gosched()
	}
	_, err := c.TCPConn.Write(b[3:])
	return len(b), err
}

// crypto/tls looks for the rest of an alert of TLS 1.2 before it gives away the last bytes in front of it.
func TestAlertInPiecesCostsNothingThatCameBeforeIt(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		b := newLaneBackend(t)
		h, gates := m.startGated(t, b.addr, nil)
		split := &splitAlert{TCPConn: dialRaw(t, h.addr)}
		config := testPKI().clientConfig()
		config.MaxVersion = tls.VersionTLS12
		c := tls.Client(split, config)
		w := newWire(t, c)
		w.get("0")
		split.hold, split.peer = true, func() syscall.Conn { return gates.of(w).TCPConn }
		commands, replies := "", "" // of 32 bytes each, so that a read of 512 ends behind one
		for i := range 100 {
			key := fmt.Sprintf("key %08d", i)
			commands += cmd("GET", key)
			replies += valueOf(key)
		}
		w.send(commands)
		c.CloseWrite()
		w.want(replies)
	})
}

func TestAlertInPiecesCostsNoReplyThatCameBeforeIt(t *testing.T) {
	t.Parallel()
	said := strings.Repeat("+0123456789abc\r\n", 200)
	peer := make(chan *net.TCPConn, 1)
	ln := fakeBackendOn(t, "127.0.0.1:0", func(c net.Conn) {
		split := &splitAlert{TCPConn: c.(*net.TCPConn), peer: func() syscall.Conn { return <-peer }}
		config := testPKI().serverConfig()
		config.MaxVersion, config.ClientAuth = tls.VersionTLS12, tls.NoClientCert
		b := tls.Server(split, config)
		if b.Handshake() != nil {
			return
		}
		split.hold = true
		io.WriteString(b, said)
		b.CloseWrite()
		io.Copy(io.Discard, c)
	})
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer <- raw.(*net.TCPConn)
	sock, err := netio.NewSocket(raw, netio.NewBuffers(0).NewAccount(), 0)
	if err != nil {
		t.Fatal(err)
	}
	over := tls.Client(sock, testPKI().clientConfig())
	c := &backend.Conn{}
	c.Carry(sock, over)
	defer c.Drop()
	var got strings.Builder
	for err == nil {
		var b []byte
		var k *netio.Chunk
		b, k, err = c.Receive()
		got.Write(b)
		c.Free(k)
	}
	if err != io.EOF || got.String() != said {
		t.Errorf("got %d bytes of %d, %v", got.Len(), len(said), err)
	}
}
