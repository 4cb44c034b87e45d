package proxytest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain holds that no test leaves a goroutine.
func TestMain(m *testing.M) {
	code := m.Run()
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > 1 && code == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			fmt.Printf("goroutines left:\n%s\n", buf[:runtime.Stack(buf, true)])
			code = 1
		}
	}
	os.Exit(code)
}

func TestHookAnswersInPlaceOfACommand(t *testing.T) {
	d := start(t, Options{})
	d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) {
		switch string(args[0]) {
		case "EXTRA":
			return []byte("+one\r\n+two\r\n"), true
		case "SILENT":
			return nil, true
		case "HALF":
			return []byte("$10\r\nabc"), true
		case "CLOSE":
			d.Kill(conn)
			return nil, true
		}
		return nil, false
	})
	c := dial(t, d.Addr())
	send(t, c, bytes.Join([][]byte{Encode("PING"), Encode("EXTRA"), Encode("SILENT"), Encode("PING"), Encode("HALF")}, nil))
	want(t, c, "+PONG\r\n+one\r\n+two\r\n+PONG\r\n$10\r\nabc")
	send(t, c, Encode("CLOSE"))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("not closed")
	}
	var names []string
	for _, cmd := range d.Commands() {
		names = append(names, cmd.String())
	}
	if got := strings.Join(names, " "); got != "PING EXTRA SILENT PING HALF CLOSE" {
		t.Errorf("got %q", got)
	}
}

func TestSendAndKillAll(t *testing.T) {
	d := start(t, Options{})
	c := dial(t, d.Addr())
	if !d.Wait(time.Minute, func() bool { return d.Conns() == 1 }) {
		t.Fatal("no connection")
	}
	d.Send(1, []byte("+unasked\r\n"))
	want(t, c, "+unasked\r\n")
	d.KillAll()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
	if !d.Wait(time.Minute, func() bool { return d.Conns() == 0 }) {
		t.Error("still a connection")
	}
}

func TestStallHoldsEverythingUntilRelease(t *testing.T) {
	d := start(t, Options{})
	c := dial(t, d.Addr())
	send(t, c, Encode("PING"))
	want(t, c, "+PONG\r\n")
	d.Stall()
	send(t, c, Encode("SET", "k", "v"))
	// The kernel and the accept loop go on. Once they have seen so many, c would have been answered.
	const others = 200
	for range others {
		dial(t, d.Addr())
	}
	if !d.Wait(time.Minute, func() bool { return d.Accepted() == 1+others }) {
		t.Fatal("accepts nobody while stalled")
	}
	if got := d.Commands(); len(got) != 1 {
		t.Errorf("got %v while stalled, want the PING before", got)
	}
	d.Release()
	want(t, c, "+OK\r\n")
	if got, _ := d.String(0, "k"); got != "v" {
		t.Errorf("got %q", got)
	}
	d.Stall() // Close must not wait for Release
}

func TestHalfCloseBehindAPipelineLosesReplies(t *testing.T) {
	pipeline := bytes.Repeat(Encode("ECHO", "x"), 3)
	for _, keep := range []bool{false, true} {
		d := start(t, Options{KeepRepliesOnHalfClose: keep, HalfCloseWindow: time.Minute})
		c := dial(t, d.Addr())
		send(t, c, pipeline)
		halfClose(c)
		b, err := io.ReadAll(c)
		text := ""
		if keep {
			text = strings.Repeat("$1\r\nx\r\n", 3)
		}
		if string(b) != text || err != nil {
			t.Errorf("keep %v: got %q, %v", keep, b, err)
		}
		if got := len(d.Commands()); got != 3 {
			t.Errorf("%d commands ran, want 3", got)
		}
	}
}

func TestProtocolErrorLosesRepliesWhenAsked(t *testing.T) {
	d := start(t, Options{LoseRepliesOnProtocolError: true})
	c := dial(t, d.Addr())
	send(t, c, append(Encode("PING"), "*x\r\n"...))
	if b, _ := io.ReadAll(c); string(b) != "-ERR Protocol error: -ERR Protocol error: invalid multibulk length\r\n" {
		t.Errorf("got %q", b)
	}
}

func TestDeniedCommandAndPassword(t *testing.T) {
	d := start(t, Options{RequirePass: "s3cret", Users: []User{{Name: "web", Password: "pw", Deny: []string{"FLUSHALL", "ACL"}}}})
	c := dial(t, d.Addr())
	for _, step := range [][2]string{
		{"GET k", "-NOAUTH Authentication required.\r\n"},
		{"AUTH web bad", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"},
		{"AUTH web pw", "+OK\r\n"},
		{"FLUSHALL", "-NOPERM web has no ACL permissions\r\n"},
		{"acl whoami", "-NOPERM web has no ACL permissions\r\n"},
		{"GET k", "$-1\r\n"},
	} {
		send(t, c, Encode(strings.Fields(step[0])...))
		want(t, c, step[1])
	}
	send(t, c, Encode("acl whoami"))
	want(t, c, "-NOPERM web has no ACL permissions\r\n")
}

func TestMonitorShowsHelloAuthAndHidesAuth(t *testing.T) {
	d := start(t, Options{RequirePass: "pw"})
	m, c := dial(t, d.Addr()), dial(t, d.Addr())
	send(t, m, append(Encode("AUTH", "pw"), Encode("MONITOR")...))
	want(t, m, "+OK\r\n+OK\r\n")
	send(t, c, bytes.Join([][]byte{Encode("AUTH", "pw"), Encode("HELLO", "2", "AUTH", "default", "pw"), Encode("QUIT")}, nil))
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	send(t, m, Encode("PING"))
	got := ""
	for !strings.Contains(got, "-ERR Replica can't interact with the keyspace\r\n") {
		b := make([]byte, 4096)
		n, err := m.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got += string(b[:n])
	}
	if !strings.Contains(got, `"HELLO" "2" "AUTH" "default" "pw"`) || !strings.Contains(got, "] \"AUTH\"\r\n") {
		t.Errorf("got %q", got)
	}
}

func TestBlockedClientThatIsGoneLosesNoElement(t *testing.T) {
	d := start(t, Options{})
	a, b := dial(t, d.Addr()), dial(t, d.Addr())
	send(t, a, Encode("BLPOP", "q", "0"))
	if !d.Wait(time.Minute, func() bool { return d.Blocked() == 1 }) {
		t.Fatal("does not block")
	}
	_ = a.Close()
	if !d.Wait(time.Minute, func() bool { return d.Blocked() == 0 }) {
		t.Fatal("still blocks")
	}
	send(t, b, append(Encode("RPUSH", "q", "e"), Encode("LLEN", "q")...))
	want(t, b, ":1\r\n:1\r\n")
}

func TestScriptsLeaveStateBehind(t *testing.T) {
	d := start(t, Options{Users: []User{{Name: "web", Password: "pw"}}})
	c, other := dial(t, d.Addr()), dial(t, d.Addr())
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"EVAL", "redis.call('HELLO','2','AUTH','web','pw') return 1", "0"}, ":1\r\n"},
		{[]string{"ACL", "WHOAMI"}, "$11\r\nUser is web\r\n"},
		{[]string{"SCRIPT", "LOAD", "redis.call('WATCH',KEYS[1]) return KEYS[1]"}, "$40\r\n" + sha1Hex("redis.call('WATCH',KEYS[1]) return KEYS[1]") + "\r\n"},
		{[]string{"EVALSHA", sha1Hex("redis.call('WATCH',KEYS[1]) return KEYS[1]"), "1", "w"}, "$1\r\nw\r\n"},
	} {
		send(t, c, Encode(step.args...))
		want(t, c, step.want)
	}
	send(t, other, Encode("SET", "w", "1"))
	want(t, other, "+OK\r\n")
	send(t, c, append(Encode("MULTI"), Encode("EXEC")...))
	want(t, c, "+OK\r\n$-1\r\n")
}

func TestDeepPipelineWithoutAReader(t *testing.T) {
	d := start(t, Options{})
	c := dial(t, d.Addr())
	const n = 100000
	go func() { _, _ = c.Write(bytes.Repeat(Encode("PING"), n)) }() // ends when all is read below
	want(t, c, strings.Repeat("+PONG\r\n", n))
}

func TestServesTLSAndUnixSockets(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, Options{
		Listen: "unix:" + filepath.Join(t.TempDir(), "s"),
		TLS:    &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
	})
	c := tls.Client(dial(t, d.Addr()), &tls.Config{InsecureSkipVerify: true})
	send(t, c, append(Encode("PING"), Encode("QUIT")...))
	if b, err := io.ReadAll(c); string(b) != "+PONG\r\n+OK\r\n" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	plain := dial(t, d.Addr())
	send(t, plain, Encode("PING"))
	want(t, plain, "-ERR Bad TLS header, double check if you enabled TLS for your client.\r\n")
}

func TestParserGivesTheSameHoweverItIsCut(t *testing.T) {
	input := []byte("PING\r\n*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\nset k v\n*01\r\n$04\r\nPING\r\n")
	all := func(cut int) (out []string) {
		var p parser
		for _, piece := range [][]byte{input[:cut], input[cut:]} {
			p.feed(piece)
			for {
				args, err := p.next()
				if err != nil {
					t.Fatal(err)
				}
				if args == nil {
					break
				}
				out = append(out, Command{Args: args}.String())
			}
			p.endOfRead()
		}
		return out
	}
	whole := fmt.Sprint(all(0))
	for cut := range input {
		if got := fmt.Sprint(all(cut)); got != whole {
			t.Errorf("cut at %d: got %s, want %s", cut, got, whole)
		}
	}
}
