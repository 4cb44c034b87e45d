package backend

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/limit"
	"dragontls/proxy/netio"
)

// refusing answers each connection by one line and closes it.
func refusing(t *testing.T, line string) string {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, line+"\r\n")
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	return ln.Addr().String()
}

// The log says that the backend is full, and then every ten seconds how often it was.
func TestLogSaysHowManyConnectionsAFullBackendRefused(t *testing.T) {
	t.Parallel()
	addr := refusing(t, "-ERR max number of clients reached")
	var logs bytes.Buffer
	var now clock.Atomic
	full := limit.New(limit.Options{Name: "maxclients", Message: "full", Log: zerolog.New(&logs), Now: now.Load})
	b := New(Config{
		Buffers: netio.NewBuffers(0), Log: zerolog.Nop(), Now: now.Load, Limits: Limits{Clients: full},
		Target: func() (string, string, error) { return "tcp", addr, nil },
	})
	refused := func(n int) {
		t.Helper()
		for range n {
			_, err := b.Dial(t.Context(), Login{Name: "x"})
			var r *Refusal
			if !errors.As(err, &r) || !errors.Is(err, ErrMaxClients) || Reason(err) != "max_clients" {
				t.Fatalf("got %v", err)
			}
			if r.Asked != "CLIENT SETNAME" || string(r.Text()) != "-ERR max number of clients reached\r\n" {
				t.Errorf("%q was answered %q", r.Asked, r.Text())
			}
		}
	}
	said := func(want ...string) {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
		logs.Reset()
		if len(want) == 0 {
			want = []string{""}
		}
		if len(lines) != len(want) {
			t.Fatalf("got %q, want %q", lines, want)
		}
		for i, line := range lines {
			if !strings.Contains(line, want[i]) {
				t.Errorf("got %q, want %q", line, want[i])
			}
		}
	}
	refused(3)
	said(`"count":1,"backend":"redis://` + addr + `","answer":"ERR max number of clients reached"`)
	now.Store(now.Load().Add(limit.Interval))
	refused(1)
	said(`"count":3,"backend":"redis://` + addr + `","answer":"ERR max number of clients reached"`)
	if b.IsFailing() {
		t.Error("others have to wait before they dial")
	}

	b.answered.Store(now.Load())
	if r := b.Ready(); !r.OK || r.Reason != "max_clients" || r.Detail != "the backend refuses new connections, 4 so far: ERR max number of clients reached" {
		t.Errorf("%+v", r)
	}
	now.Store(now.Load().Add(probeFresh))
	b.answered.Store(now.Load())
	if r := b.Ready(); r != (Readiness{OK: true}) {
		t.Errorf("%+v after %v", r, probeFresh)
	}
}
