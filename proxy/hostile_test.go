package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

const (
	sayMultibulk = "-ERR Protocol error: -ERR Protocol error: invalid multibulk length\r\n"
	sayBulk      = "-ERR Protocol error: -ERR Protocol error: invalid bulk length\r\n"
	sayParse     = "-ERR Protocol error: -ERR Protocol error: parse error\r\n"
	sayInline    = "-ERR Protocol error: too big inline request\r\n"
	sayHTTP      = "-ERR dragontls: this is not an HTTP server\r\n"
)

// What no command is ends its session behind the replies to what came before, in Dragonfly's words.
func TestHostileBytesEndOneSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		good := h.dial()
		for _, tt := range []struct {
			name, send, want string
			reason           closeReason
		}{
			{"bulk of 2^63-1 bytes", "*1\r\n$9223372036854775807\r\n", sayBulk, closeProtocol},
			{"bulk beyond int64", "*1\r\n$92233720368547758070\r\n", sayMultibulk, closeProtocol},
			{"bulk of 2^31", "*1\r\n$2147483648\r\n", sayBulk, closeProtocol},
			{"bulk above the limit", "*1\r\n$536870913\r\n", sayBulk, closeProtocol},
			{"bulk of -100", "*1\r\n$-100\r\n", sayMultibulk, closeProtocol},
			{"null bulk", "*1\r\n$-1\r\n", sayBulk, closeProtocol},
			{"bulk of -0", "*1\r\n$-0\r\n\r\n", sayBulk, closeProtocol},
			{"bulk without a number", "*1\r\n$\r\n", sayMultibulk, closeProtocol},
			{"bulk's header without an end", "*1\r\n$" + strings.Repeat("1", 40), sayMultibulk, closeProtocol},
			{"no bulk", "*1\r\n:1\r\n", sayBulk, closeProtocol},
			{"bulk without CR LF", "*1\r\n$4\r\nPINGxx", sayParse, closeProtocol},
			{"300 million arguments", "*300000000\r\n", sayMultibulk, closeProtocol},
			{"2^63-1 arguments", "*9223372036854775807\r\n", sayMultibulk, closeProtocol},
			{"one argument too many", "*65537\r\n", sayMultibulk, closeProtocol},
			{"no arguments", "*0\r\n", sayMultibulk, closeProtocol},
			{"-1 arguments", "*-1\r\n", sayMultibulk, closeProtocol},
			{"array without a number", "*\r\n", sayMultibulk, closeProtocol},
			{"array's header without an end", "*" + strings.Repeat("0", 40), sayMultibulk, closeProtocol},
			{"inline without an end", strings.Repeat("a ", 40<<10), sayInline, closeProtocol},
			{"inline above 64 KiB", "PING " + strings.Repeat("a", 64<<10) + "\r\n", sayInline, closeProtocol},
			{"HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", sayHTTP, closeHTTP},
			{"HTTP with a body", "POST /x HTTP/1.0\r\n\r\n" + cmd("FLUSHALL"), sayHTTP, closeHTTP},
		} {
			t.Run(tt.name, func(t *testing.T) {
				before := h.closedFor(tt.reason)
				w := h.dial()
				w.t = t
				w.send(cmd("ECHO", "a") + cmd("ECHO", "b") + tt.send)
				w.want("$1\r\na\r\n$1\r\nb\r\n" + tt.want)
				w.wantCleanEnd()
				h.wantClosed(tt.reason, before+1)
				good.do("+PONG\r\n", "PING")
			})
		}
		eventually(t, "the backend connections are closed", func() bool { return h.Stats().BackendConnections == 1 })
		eventually(t, "nothing is lent", func() bool { return h.buffers.Lent() == 0 })
	})
}

// wantCleanEnd wants close_notify: io.EOF, where a reset or a cut would be another error.
func (w *wire) wantCleanEnd() {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(w.r); err != nil || len(b) > 0 {
		w.t.Errorf("got %.100q and %v, want the end", b, err)
	}
	w.Close()
}

func TestStrangeBytesAreStillCommands(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		for _, tt := range []struct{ send, want string }{
			{"*1\r\n$004\r\nPING\r\n", "+PONG\r\n"},
			{"*+1\r\n$+4\r\nPING\r\n", "+PONG\r\n"},
			{"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "$0\r\n\r\n"},
			{"\r\n\n \r\nPING\n", "+PONG\r\n"},
			{"ECHO\ta\r\n", "$1\r\na\r\n"},
			{"ECHO a\x00b\r\n", "$3\r\na\x00b\r\n"},
			{"ECHO " + strings.Repeat("x", 64<<10-10) + "\r\n", fmt.Sprintf("$%d\r\n", 64<<10-10) + strings.Repeat("x", 64<<10-10) + "\r\n"},
			{"DEL " + strings.Repeat("a ", 32000) + "\r\n", ":0\r\n"},
			{fmt.Sprintf("*65536\r\n$3\r\nDEL\r\n%s", strings.Repeat("$1\r\na\r\n", 65535)), ":0\r\n"},
			{"ECHO \"a b\"\r\nPING\r\n", "-ERR dragontls: quotes and backslashes in an inline command are not supported, send a RESP array\r\n+PONG\r\n"},
		} {
			w.send(tt.send)
			w.want(tt.want)
		}
		w.send("$9223372036854775807 x\r\n")
		if line, err := w.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "-ERR unknown command") {
			t.Errorf("got %q, %v", line, err)
		}
		w.do("+PONG\r\n", "PING")
	})
}

// 65,000 records of one byte each: a parser that starts over with each read, or recurses, would not end.
func TestOneByteInEachRecord(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		value := strings.Repeat("v", 65000)
		go func(s string) { // ends with the bytes, or the connection
			for i := range len(s) {
				if _, err := io.WriteString(w.Conn, s[i:i+1]); err != nil {
					return
				}
			}
		}(cmd("SET", "k", value) + cmd("STRLEN", "k"))
		w.want("+OK\r\n:65000\r\n")
	})
}

// Counts that never come cost what was sent, not what was announced.
func TestAnnouncedSizesCostNothing(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		before := heap()
		for range 100 {
			h.dial().send("*65536\r\n$3\r\nSET\r\n$536870912\r\n")
		}
		h.dial().do("+PONG\r\n", "PING")
		eventually(t, "all are read", func() bool { return h.Stats().BytesIn >= 100*29 })
		if grown := heap() - before; grown > 50<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
		if n := h.buffers.Lent(); n > 100*netio.PageSize {
			t.Errorf("%d bytes lent for 100 beginnings", n)
		}
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// mostLent watches what is lent until stop is called, which returns the maximum.
func (h *harness) mostLent() (stop func() int64) {
	done, result := make(chan struct{}), make(chan int64)
	go func() { // ends with stop
		var most int64
		for {
			most = max(most, h.buffers.Lent())
			select {
			case <-done:
				result <- most
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	}()
	return func() int64 { close(done); return <-result }
}

// A stream whose reads never end where a command does keeps no more than one command.
func TestMisalignedStreamKeepsLittle(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		stop := h.mostLent()
		one := cmd("SET", "k", strings.Repeat("v", 10000))
		const n = 3000
		go func() { // ends with the bytes, or the connection
			stream := strings.NewReader(strings.Repeat(one, n))
			io.CopyBuffer(struct{ io.Writer }{w.Conn}, struct{ io.Reader }{stream}, make([]byte, 7777))
		}()
		for range n {
			w.want("+OK\r\n")
		}
		if most := stop(); most > 8*netio.ChunkSize {
			t.Errorf("%d bytes were lent", most)
		}
	})
}

func TestPipelineOf100000(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		stop := h.mostLent()
		go io.WriteString(w.Conn, strings.Repeat(cmd("PING"), 100000)) // ends with the bytes, or the connection
		w.want(strings.Repeat("+PONG\r\n", 100000))
		if most := stop(); most > 8*netio.ChunkSize {
			t.Errorf("%d bytes were lent", most)
		}
	})
}

// fakeBackend answers each connection by serve, in its own goroutine.
func fakeBackend(t testing.TB, serve func(c net.Conn)) string {
	t.Helper()
	return fakeBackendOn(t, "127.0.0.1:0", serve).Addr().String()
}

// fakeBackendOn is the same at an address, and may be closed to further connections.
func fakeBackendOn(t testing.TB, addr string, serve func(c net.Conn)) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range all {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln
}

// readCommand reads one canonical command.
func readCommand(r *bufio.Reader) (args []string, err error) {
	var n, size int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	for range n {
		if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args = append(args, string(b[:size]))
	}
	return args, nil
}

// scripted answers each command by reply; an empty one closes the connection.
func scripted(t testing.TB, reply func(args []string) string) string {
	return fakeBackend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			args, err := readCommand(r)
			if err != nil {
				return
			}
			s := reply(args)
			if s == "" {
				return
			}
			if _, err := io.WriteString(c, s); err != nil {
				return
			}
		}
	})
}

func TestClientsThatNeverReadAreClosed(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		const clients, size = 100, 2 << 20
		big := fmt.Appendf(nil, "$%d\r\n%s\r\n", size, strings.Repeat("x", size))
		h, gates := m.startGated(t, fakeBackend(t, func(c net.Conn) {
			r := bufio.NewReader(c)
			for {
				args, err := readCommand(r)
				if err != nil {
					return
				}
				reply := big
				if args[0] != "GET" {
					reply = []byte("+PONG\r\n")
				}
				if _, err := c.Write(reply); err != nil {
					return
				}
			}
		}), func(c *Config) { c.WriteTimeout = time.Hour })
		good := h.dial()
		before := heap()
		stop := h.mostLent()
		var all []*wire
		for range clients {
			w := h.dial()
			all = append(all, w)
			w.do("+PONG\r\n", "PING")
			gates.of(w).Stop()
			w.send(cmd("GET", "k"))
		}
		for _, w := range all {
			eventually(t, "a write waits for it", func() bool { return gates.of(w).Waited() > 0 })
			good.do("+PONG\r\n", "PING")
		}
		if n := len(h.Stats().SessionsClosed); n != 0 {
			t.Errorf("closed before their time: %v", h.Stats().SessionsClosed)
		}
		for _, w := range all {
			gates.of(w).Pass(2 * time.Hour)
		}
		h.wantClosed(closeSlow, clients)
		good.do("+PONG\r\n", "PING")
		if most := stop(); most > clients*2*netio.ChunkSize {
			t.Errorf("%d bytes were lent to %d clients", most, clients)
		}
		if grown := heap() - before; grown > 64<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
		runtime.KeepAlive(all)
	})
}

// resetBy ends a client's socket with RST.
func resetBy(w *wire) {
	raw := w.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
	raw.SetLinger(0)
	raw.Close()
}

func TestResetInTheMiddleOfAValue(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		good := h.dial()
		good.do("+OK\r\n", "SET", "big", strings.Repeat("x", 32<<20))
		t.Run("to the backend", func(t *testing.T) {
			w := h.dial()
			w.send("*3\r\n$3\r\nSET\r\n$3\r\nnew\r\n$10000000\r\n" + strings.Repeat("y", 5000000))
			resetBy(w)
			eventually(t, "its session ends", func() bool { return h.Stats().Sessions == 1 })
			good.do(":0\r\n", "EXISTS", "new")
		})
		t.Run("to the client", func(t *testing.T) {
			w := h.dial()
			w.send(cmd("GET", "big"))
			w.want("$33554432\r\nxxxx")
			resetBy(w)
			eventually(t, "its session ends", func() bool { return h.Stats().Sessions == 1 })
		})
		h.wantClosed(closeClientError, 2)
		eventually(t, "the backend connections are closed", func() bool { return h.Stats().BackendConnections == 1 })
		good.do("+PONG\r\n", "PING")
	})
}

func TestResetOfTheBackendInTheMiddleOfAValue(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, fakeBackend(t, func(c net.Conn) {
			r := bufio.NewReader(c)
			if args, err := readCommand(r); err != nil || args[0] != "GET" {
				return
			}
			io.WriteString(c, "$1000000\r\n"+strings.Repeat("x", 500000))
			readCommand(r) // the client has the half and says so
			c.(*net.TCPConn).SetLinger(0)
		}), nil)
		w := h.dial()
		w.send(cmd("GET", "k"))
		w.want("$1000000\r\n" + strings.Repeat("x", 500000))
		w.send(cmd("PING"))
		if got := w.wantEnd(); got != "" {
			t.Errorf("inside a value: %q", got)
		}
		h.wantClosed(closeBackendError, 1)
	})
}

func TestProtocolErrorBehindABlockingCommand(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		good := h.dial()
		blocked := func() *wire {
			w := h.dial()
			w.send(cmd("ECHO", "a") + cmd("BLPOP", "list", "0") + "*0\r\n")
			w.want("$1\r\na\r\n")
			return w
		}
		t.Run("the reply comes, then the error", func(t *testing.T) {
			w := blocked()
			good.do(":1\r\n", "RPUSH", "list", "x")
			w.want("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n" + sayMultibulk)
			w.wantCleanEnd()
		})
		for name, leave := range map[string]func(*wire){"closes": func(w *wire) { w.Close() }, "resets": resetBy} {
			t.Run("the client "+name, func(t *testing.T) {
				w := blocked()
				leave(w)
				eventually(t, "its session ends", func() bool { return h.Stats().Sessions == 1 })
				eventually(t, "the backend does not block", func() bool {
					good.send(cmd("INFO", "clients"))
					good.SetReadDeadline(time.Now().Add(patience))
					var n int
					fmt.Fscanf(good.r, "$%d\r\n", &n)
					info := make([]byte, n+2)
					io.ReadFull(good.r, info)
					return strings.Contains(string(info), "blocked_clients:0")
				})
				good.do(":1\r\n", "RPUSH", "list", "kept")
				good.do("$4\r\nkept\r\n", "LPOP", "list")
			})
		}
	})
}

func TestProtocolErrorInsideAStreamedCommand(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
		good := h.dial()
		denied := "-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n"
		body := strings.Repeat("x", 200000)
		for _, tt := range []struct{ name, send, want string }{
			{"end of a bulk", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n" + body + "xx", sayParse},
			{"next header", "*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n" + body + "\r\n$-5\r\n", sayMultibulk},
			{"of a refused command", "*3\r\n$8\r\nSHUTDOWN\r\n$200000\r\n" + body + "\r\n:1\r\n", denied + sayBulk},
		} {
			t.Run(tt.name, func(t *testing.T) {
				w := h.dial()
				w.t = t
				w.send(cmd("ECHO", "a") + tt.send)
				w.want("$1\r\na\r\n" + tt.want)
				w.wantCleanEnd()
				good.do(":0\r\n", "EXISTS", "k")
			})
		}
		h.wantClosed(closeProtocol, 3)
		w := h.dial()
		w.send(cmd("SHUTDOWN", body, body) + cmd("SHUTDOWN", body) + cmd("ECHO", "b"))
		w.want(denied + denied + "$1\r\nb\r\n")
	})
}
