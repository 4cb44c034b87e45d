package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestParsePace(t *testing.T) {
	for name, want := range map[string]pace{
		"model": dragonflyPace, "slow": slowPace, "model:1ms,2us": {time.Millisecond, 2 * time.Microsecond}, dragonflyPace.String(): dragonflyPace,
	} {
		if got, err := parsePace(name); err != nil || got != want {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"valkey", "model:", "model:1ms", "model:1,2", "model:-1us,0s"} {
		if _, err := parsePace(name); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "model:70") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestSlowKeyTime(t *testing.T) {
	for key, want := range map[string]time.Duration{
		slowKeyPrefix + "200ms": 200 * time.Millisecond, "k": 0, slowKeyPrefix: 0, slowKeyPrefix + "x": 0, slowKeyPrefix + "-1s": 0, "x" + slowKeyPrefix + "1s": 0,
	} {
		if got := slowKeyTime([]byte(key)); got != want {
			t.Errorf("%q: got %v, want %v", key, got, want)
		}
	}
}

// A connection of the model takes its time for each batch and each command; what it answers is what a backend answers.
func TestModelAnswersInItsPace(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	m := &model{pace: pace{10 * time.Millisecond, 2 * time.Millisecond}}
	go m.serve(ln) // ends with ln
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	ask := func(want string, commands ...[]byte) {
		t.Helper()
		begun := time.Now()
		if _, err := c.Write(bytes.Join(commands, nil)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		if took, least := time.Since(begun), m.pace.batch+time.Duration(len(commands))*m.pace.each; took < least {
			t.Errorf("%d commands took %v, want %v at least", len(commands), took, least)
		}
	}
	ask("+PONG\r\n", encodeCommand("PING"))
	ask("$-1\r\n", encodeCommand("get", "k"))
	ask("+OK\r\n$1\r\nv\r\n$2\r\nhi\r\n", encodeCommand("SET", "k", "v"), encodeCommand("GET", "k"), encodeCommand("ECHO", "hi"))
	ask("+OK\r\n*0\r\n", encodeCommand("MULTI"), encodeCommand("EXEC"))
	ask("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\nw\r\n", encodeCommand("MULTI"), encodeCommand("SET", "k", "w"), encodeCommand("GET", "k"), encodeCommand("EXEC"))
	ask("%1\r\n$5\r\nproto\r\n:3\r\n", encodeCommand("HELLO", "3"))
	ask("-ERR unknown command '\"KEYS\"'\r\n", encodeCommand("KEYS", "*"))
	begun := time.Now()
	ask("$-1\r\n", encodeCommand("GET", slowKeyPrefix+"30ms"))
	if took := time.Since(begun); took < 42*time.Millisecond {
		t.Errorf("a slow key took %v, want 42 ms at least", took)
	}
	ask("+OK\r\n", encodeCommand("QUIT"))
	if _, err := bufio.NewReader(c).ReadByte(); err != io.EOF {
		t.Errorf("after QUIT: %v", err)
	}
}
