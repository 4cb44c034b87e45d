package proxytest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

func startRelay(t *testing.T, f Faults) (*Relay, *Dragonfly) {
	t.Helper()
	d := start(t, Options{RawLimit: 1 << 20, KeepRepliesOnHalfClose: true})
	r, err := NewRelay(d.Addr(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, d
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func send(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	n, err := io.ReadFull(c, b)
	if string(b[:n]) != text {
		t.Fatalf("got %q (%v), want %q", b[:n], err, text)
	}
}

func TestRelayPassesAndDrips(t *testing.T) {
	for name, f := range map[string]Faults{
		"plain":  {},
		"drip":   {ToTarget: Fault{MaxPiece: 1}, ToClient: Fault{MaxPiece: 1}},
		"random": {ToTarget: Fault{MaxPiece: 7, Random: true}, ToClient: Fault{MaxPiece: 5, Random: true}, Seed: 1},
		"delay":  {ToTarget: Fault{Delay: time.Millisecond, Jitter: time.Millisecond}, ToClient: Fault{Rate: 100000}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := startRelay(t, f)
			c := dial(t, r.Addr())
			val := strings.Repeat("x", 500)
			send(t, c, append(Encode("SET", "k", val), Encode("GET", "k")...))
			want(t, c, "+OK\r\n$500\r\n"+val+"\r\n")
		})
	}
}

func TestRelayCutsInsideAFrame(t *testing.T) {
	cmd := Encode("SET", "k", "0123456789")
	for name, cut := range map[string]Cut{"reset": CutReset, "fin": CutFIN, "half": CutHalfClose} {
		t.Run(name, func(t *testing.T) {
			r, d := startRelay(t, Faults{ToTarget: Fault{Cut: len(cmd) - 5, CutWith: cut}})
			c := dial(t, r.Addr())
			send(t, c, cmd)
			_, err := io.ReadAll(c)
			if reset := errors.Is(err, syscall.ECONNRESET); reset != (cut == CutReset) {
				t.Errorf("got %v", err)
			}
			part := cmd[:len(cmd)-5]
			if !d.Wait(time.Minute, func() bool { return bytes.Equal(d.RawBytes(1), part) }) {
				t.Errorf("target got %q, want %q", d.RawBytes(1), part)
			}
		})
	}
}

func TestRelayCutsAReply(t *testing.T) {
	r, _ := startRelay(t, Faults{ToClient: Fault{Cut: 3}})
	c := dial(t, r.Addr())
	send(t, c, Encode("PING"))
	b, err := io.ReadAll(c)
	if string(b) != "+PO" || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v", b, err)
	}
}

func TestRelayHoldsPausesAndReleases(t *testing.T) {
	r, d := startRelay(t, Faults{Hold: true, ToTarget: Fault{Pause: 5}})
	c := dial(t, r.Addr())
	send(t, c, Encode("PING"))
	waitFor(t, func() bool { return r.Waiting() == 2 })
	if got := d.RawBytes(1); len(got) != 0 {
		t.Errorf("passed while held: %q", got)
	}
	r.Release()
	waitFor(t, func() bool { return len(d.RawBytes(1)) == 5 && r.Waiting() == 1 })
	r.Release()
	want(t, c, "+PONG\r\n")
}

// waitFor polls what has no event; it fails the test only after a long time.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never came true")
		}
	}
}

func TestRelayResetsAllAndTakesNewFaults(t *testing.T) {
	r, _ := startRelay(t, Faults{})
	c := dial(t, r.Addr())
	send(t, c, Encode("PING"))
	want(t, c, "+PONG\r\n")
	if got := r.Conns(); got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
	r.ResetAll()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	r.SetFaults(Faults{ToClient: Fault{Cut: 1, CutWith: CutFIN}})
	c = dial(t, r.Addr())
	send(t, c, Encode("PING"))
	if b, err := io.ReadAll(c); string(b) != "+" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestRelayCloseWithEverythingStuck(t *testing.T) {
	r, _ := startRelay(t, Faults{ToTarget: Fault{Cut: 1, CutWith: CutSilent}, ToClient: Fault{Rate: 1}})
	for range 5 {
		send(t, dial(t, r.Addr()), Encode("PING"))
	}
	r.Close()
	if got := r.Conns(); got != 0 {
		t.Errorf("got %d connections after Close", got)
	}
}

// However a relay cuts them up, commands and answers stay the same.
func TestTranscriptsThroughARelayInRandomPieces(t *testing.T) {
	for _, tr := range Transcripts() {
		t.Run(tr.File, func(t *testing.T) {
			r, err := NewRelay(start(t, tr.Options).Addr(), Faults{
				ToTarget: Fault{MaxPiece: 9, Random: true}, ToClient: Fault{MaxPiece: 9, Random: true}, Seed: 20261123,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			p := Player{Dial: func() (net.Conn, error) { return net.Dial("tcp", r.Addr()) }, Proxied: true}
			p.Play(t, tr.File)
		})
	}
}

// Connections that are open stay with their target, and can be silenced; those that come later have nothing of it.
func TestRelayIsRetargetedAndSilencedForConnectionsApart(t *testing.T) {
	r, _ := startRelay(t, Faults{})
	other := start(t, Options{})
	old := dial(t, r.Addr())
	send(t, old, []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nfirst\r\n"))
	want(t, old, "+OK\r\n")
	r.Retarget(other.Addr())
	second := dial(t, r.Addr())
	send(t, second, []byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"))
	want(t, second, "$-1\r\n")
	send(t, old, []byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"))
	want(t, old, "$5\r\nfirst\r\n")
	r.Silence()
	send(t, old, []byte("*1\r\n$4\r\nPING\r\n"))
	third := dial(t, r.Addr())
	send(t, third, []byte("*1\r\n$4\r\nPING\r\n"))
	want(t, third, "+PONG\r\n")
	r.ResetAll()
	if b, _ := io.ReadAll(old); len(b) > 0 {
		t.Errorf("got %q on a connection that is silent", b)
	}
}
