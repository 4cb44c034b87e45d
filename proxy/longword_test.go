package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"dragontls/proxy/proxytest"
)

// longWords are commands that are refused because a word that decides is not complete in what is held of them.
var longWords = []struct{ command, text string }{
	{cmd(tooLong), string(textLongName)},
	{cmd(strings.Repeat(tooLong, 20), "x"), string(textLongName)},
	{cmd("FLUSHALL\x00"+tooLong, tooLong), string(textLongName)},
	{"*01\r\n$0066000\r\n" + tooLong + "\r\n", string(textLongName)},
	{"*2\r\n$3\r\nGET" + "\r\n$0\r\n\r\n" + cmd("FLUSHALL\x00"+tooLong), "$-1\r\n" + string(textLongName)},
	{cmd("CONFIG", tooLong, "x"), string(textLongSub)},
	{cmd("CONFIG", "SET\x00"+tooLong, "maxmemory", "1"), string(textLongSub)},
	{cmd("script", "FLUSH\x00"+tooLong), string(textLongSub)},
	{cmd("CLIENT"+strings.Repeat(" ", 60_000), tooLong), string(textLongSub)},
}

// A command that is refused for a long word is read and dropped, however it arrives; its refusal stands in its place.
func TestLongWordIsRefusedInItsPlace(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	t.Logf("TEST_SEED=%d", seed)
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{LogLimit: 1 << 20})
		h := m.start(t, d.Addr(), nil)
		w := h.dial()
		r := rand.New(rand.NewPCG(seed, 18))
		var in, want strings.Builder
		for i := range 10 {
			for _, long := range longWords {
				mark := strconv.Itoa(i)
				in.WriteString(long.command + cmd("ECHO", mark))
				want.WriteString(long.text + bulk(mark))
			}
		}
		sent := make(chan error, 1)
		go func(b string) { // ends with the bytes, or the connection
			for len(b) > 0 {
				n := 1 + r.IntN(min(len(b), 1+r.IntN(100_000)))
				if _, err := io.WriteString(w.Conn, b[:n]); err != nil {
					sent <- err
					return
				}
				b = b[n:]
			}
			sent <- nil
		}(in.String())
		w.want(want.String())
		if err := <-sent; err != nil {
			t.Error(err)
		}
		const abort = "-EXECABORT Transaction discarded because of previous errors\r\n"
		for _, long := range longWords {
			w.send(cmd("MULTI") + cmd("SET", "a", "1") + long.command + cmd("EXEC"))
			w.want("+OK\r\n+QUEUED\r\n" + strings.Replace(long.text, "$-1", "+QUEUED", 1) + abort)
			w.do(":0\r\n", "EXISTS", "a")
		}
		w.do("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "SUBSCRIBE", "c")
		w.send(cmd(tooLong) + cmd("FLUSHALL"))
		if got := w.wantEnd(); got != string(textLongName) {
			t.Errorf("where replies cannot be counted: %q", got)
		}
		h.wantClosed(closeRefused, 1)
		for _, c := range d.Commands() {
			if len(c.Args[0]) > 60_000 || strings.HasPrefix(string(c.Args[0]), "FLUSHALL") || len(c.Args) > 1 && len(c.Args[1]) > 60_000 {
				t.Errorf("arrived: %.60q", c.Args)
			}
		}
	})
}

// recorder passes bytes on to a target and keeps what each of its connections sent.
type recorder struct {
	addr  string
	mu    sync.Mutex
	conns []*bytes.Buffer
}

func record(t *testing.T, target string) *recorder {
	r := &recorder{}
	r.addr = fakeBackend(t, func(c net.Conn) {
		network, address, _ := backendAt(target)()
		to, err := net.Dial(network, address)
		if err != nil {
			return
		}
		r.mu.Lock()
		i := len(r.conns)
		r.conns = append(r.conns, new(bytes.Buffer))
		r.mu.Unlock()
		var back sync.WaitGroup
		back.Go(func() { _, _ = io.Copy(c, to); c.Close() })
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			r.mu.Lock()
			r.conns[i].Write(buf[:n])
			r.mu.Unlock()
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				break
			}
		}
		to.Close()
		back.Wait()
	})
	return r
}

// canonical cuts b into the commands that it holds. It takes nothing but arrays of bulks, and plain numbers.
func canonical(b []byte) (commands [][]string, err error) {
	number := func(kind byte) int {
		line, rest, found := bytes.Cut(b, []byte("\r\n"))
		n, bad := strconv.Atoi(string(line[min(1, len(line)):]))
		if !found || bad != nil || line[0] != kind || strconv.Itoa(n) != string(line[1:]) {
			err = errors.New("no " + string(kind) + " where one should be: " + strconv.Quote(string(b[:min(60, len(b))])))
			return 0
		}
		b = rest
		return n
	}
	for len(b) > 0 {
		var args []string
		for range number('*') {
			size := number('$')
			if err == nil && (len(b) < size+2 || string(b[size:size+2]) != "\r\n") {
				err = errors.New("a bulk has no end")
			}
			if err != nil {
				return nil, err
			}
			args = append(args, string(b[:size]))
			b = b[size+2:]
		}
		if err != nil {
			return nil, err
		}
		commands = append(commands, args)
	}
	return commands, nil
}

// Not one byte of a command is passed on before its words are judged, not even a header; what is passed on is arrays of bulks with
// plain numbers, however big it is and however it was written.
func TestNoHeaderPassesBeforeItsWordIsJudged(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		b := record(t, redisServer(t))
		h := m.start(t, b.addr, func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
		for _, refused := range []string{
			cmd(tooLong, "y"), cmd("CONFIG", tooLong), cmd("SHUTDOWN", tooLong), cmd("AUTH", tooLong), cmd("HELLO", "3", "AUTH\x00", "u", tooLong), cmd("PING\x00" + tooLong),
			"*+1\r\n$0000066000\r\n" + tooLong + "\r\n",
		} {
			// It is there as a whole, it ends in the middle, and it goes on with what is no command.
			w := h.dial()
			w.send(cmd("ECHO", "a") + refused + cmd("ECHO", "b"))
			w.want(bulk("a"))
			w.wantErrors(1)
			w.want(bulk("b"))
			w.send(refused[:65_900])
			w.wantErrors(1)
			w.Close()
			w = h.dial()
			w.do(bulk("c"), "ECHO", "c")
			w.send(refused[:len(refused)-2] + "no end")
			w.wantErrors(2)
			w.wantCleanEnd()
		}
		w := h.dial()
		w.send("*+2\r\n$004\r\nECHO\r\n$0066000\r\n" + tooLong + "\r\n" + "echo d\r\n" + cmd("PING", tooLong))
		w.want(bulk(tooLong) + bulk("d") + bulk(tooLong))
		w.Close()
		eventually(t, "the sessions end", func() bool { return h.Stats().Sessions == 0 })
		big := 0
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, sent := range b.conns {
			commands, err := canonical(sent.Bytes())
			if err != nil {
				t.Errorf("arrived: %v", err)
			}
			for _, args := range commands {
				switch name := strings.ToUpper(args[0]); {
				case name == "ECHO" || name == "PING":
					if args[len(args)-1] == tooLong {
						big++
					}
				case len(args) > 1 && strings.Contains(strings.Join(args, ""), "xx"), name == "SHUTDOWN", name == "AUTH", len(name) > 8:
					t.Errorf("arrived: %.80q", args)
				}
			}
		}
		if big != 2 {
			t.Errorf("%d big commands arrived, want 2", big)
		}
	})
}
