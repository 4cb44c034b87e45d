package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

func TestManyHonestWritersShareScarceMemory(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { c.BufferLimit = 16 << 20 })
		var all []*wire
		for range 40 {
			all = append(all, h.dial())
		}
		for _, w := range all {
			w.send(cmd("SET", "k", strings.Repeat("v", 60000)))
		}
		for _, w := range all {
			w.want("+OK\r\n")
		}
		if n := h.closedFor(closeMemory); n != 0 {
			t.Errorf("%d sessions closed for memory", n)
		}
	})
}

func TestClientGoneBehindAFullQueueLosesNoElement(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		for name, behind := range map[string]string{
			"refused commands": strings.Repeat(cmd("SHUTDOWN"), 5000),
			"held bytes":       cmd("QUIT") + strings.Repeat(cmd("PING"), 5500),
		} {
			t.Run(name, func(t *testing.T) {
				h := m.start(t, d.Addr(), func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
				w := h.dial()
				w.send(cmd("BLPOP", "q", "0"))
				eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
				go func() { _, _ = io.WriteString(w, behind) }()
				eventually(t, "what is behind it was taken", func() bool { return h.Stats().BytesIn > 60000 })
				w.Close()
				eventually(t, "the backend connection is gone", func() bool { return d.Blocked() == 0 })
				h.wantClosed(closeClient, 1)
			})
		}
	})
}

func TestSilentBackendEndsAfterTheClientsEOF(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) { c.eofTimeout = 50 * time.Millisecond })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		w.do("$-1\r\n", "GET", "k") // over a lane, where there are lanes
		d.Stall()
		defer d.Release()
		w.send(cmd("GET", "k"))
		w.Close()
		h.wantClosed(closeClient, 1)
		eventually(t, "the backend connection is gone", func() bool { return h.ownConnections() == 0 })
	})
}

// The same where the own connection of a session is opened only then.
func TestSilentOwnConnectionEndsAfterTheClientsEOF(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.eofTimeout = 50 * time.Millisecond })
	w := h.dial()
	w.get("0")
	held := b.hold("held")
	w.send(cmd("INFO", "held"))
	w.Conn.(*tls.Conn).CloseWrite()
	<-held.reached
	w.wantEnd()
	h.wantClosed(closeClient, 1)
}

func TestIdleSessionHoldsNothingBehindAnySize(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		cert := testPKI().server
		for name, secure := range map[string]bool{"tcp": false, "tls": true} {
			t.Run(name, func(t *testing.T) {
				o := proxytest.Options{}
				if secure {
					o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
				}
				h := m.start(t, dragonflyAt(t, o).Addr(), func(c *Config) {
					if secure {
						c.Backend.TLS = func() *tls.Config { return &tls.Config{RootCAs: testPKI().pool, ServerName: "localhost"} }
					}
				})
				w := h.dial()
				for _, size := range []int{511, 512, 513, 1024, 1536, 16384, 32768, 65536} {
					head := len(cmd("SET", "k", strings.Repeat("v", size))) - size
					value := strings.Repeat("v", size-head) // the command has this size
					w.do("+OK\r\n", "SET", "k", value)
					eventually(t, fmt.Sprintf("nothing is lent behind a command of %d bytes", size), func() bool { return h.buffers.Lent() == 0 })
					value = strings.Repeat("v", size-len(fmt.Sprintf("$%d\r\n\r\n", size)))
					w.do("+OK\r\n", "SET", "k", value)
					w.do(fmt.Sprintf("$%d\r\n%s\r\n", len(value), value), "GET", "k")
					eventually(t, fmt.Sprintf("nothing is lent behind a reply of %d bytes", size), func() bool { return h.buffers.Lent() == 0 })
				}
			})
		}
	})
}

func TestManyWordsAreNotKeptWithAnIdleSession(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonflyAt(t, proxytest.Options{LogLimit: 1}).Addr(), nil)
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		var all []*wire
		for range 20 {
			w := h.dial()
			w.do("+PONG\r\n", "PING")
			all = append(all, w)
		}
		before := heap()
		for _, w := range all {
			w.send("XREAD" + strings.Repeat(" a", 30000) + "\r\nPING\r\n")
			for line := ""; line != "+PONG\r\n"; {
				var err error
				if line, err = w.r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
		}
		if grown := int64(heap()) - int64(before); grown > 20*100<<10 {
			t.Errorf("%d KiB are kept with each of 20 idle sessions", grown/20>>10)
		}
	})
}

// A backend may answer a command before it has all of it: before the rest turns out to be broken, behind it, or at that
// moment.
func TestBrokenCommandWhoseReplyIsOnItsWay(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const early = "-ERR early\r\n"
		begun, answer := make(chan struct{}), make(chan struct{})
		h := m.start(t, fakeBackend(t, func(c net.Conn) {
			if _, err := io.CopyN(io.Discard, c, 60000); err != nil {
				return // a connection of the proxy's own
			}
			begun <- struct{}{}
			<-answer
			_, _ = io.WriteString(c, early[:7])
			_, _ = io.WriteString(c, early[7:])
			_, _ = io.Copy(io.Discard, c)
		}), nil)
		broken := strings.Repeat("v", 10000) + "xx"
		for i := range 150 {
			w := h.dial()
			w.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n" + strings.Repeat("v", 90000))
			<-begun
			switch i % 3 {
			case 0:
				answer <- struct{}{}
				w.want(early)
				w.send(broken)
			case 1:
				w.send(broken)
				answer <- struct{}{}
			case 2:
				var sent sync.WaitGroup
				sent.Go(func() {
					for range i { // the answer comes a little earlier or later each time
						runtime.Gosched()
					}
					w.send(broken)
				})
				answer <- struct{}{}
				sent.Wait()
			}
			w.wantEnd()
			w.Close()
		}
		eventually(t, "all sessions are gone", func() bool { return h.Stats().Sessions == 0 })
	})
}
