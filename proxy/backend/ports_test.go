package backend

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// An operator learns that ports ran out, and what helps, once at the beginning and then seldom.
func TestRunningOutOfPortsIsTold(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	var now clock.Atomic
	b := New(Config{
		Target: func() (string, string, error) { return "tcp", "backend.test:6379", nil },
		Lookup: func(context.Context, string) ([]string, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
		},
		Moved: func(Move) {}, Buffers: netio.NewBuffers(0), Log: zerolog.New(&logs), Now: now.Load,
	})
	for i, want := range []string{`"dials":1`, "", "", `"dials":3`} {
		if i == 3 {
			now.Store(now.Load().Add(tellPortsInterval + time.Second))
		}
		logs.Reset()
		if _, err := b.Dial(context.Background(), Login{}); Reason(err) != "no_ports" {
			t.Fatalf("dial %d: %v", i, err)
		}
		line := logs.String()
		if (line == "") != (want == "") || !strings.Contains(line, want) || want != "" && !strings.Contains(line, "ip_local_port_range") {
			t.Errorf("dial %d: logged %q, want %q", i, line, want)
		}
	}
	if n := b.Stats().Errors["no_ports"]; n != 4 {
		t.Errorf("%d dials are counted, want 4", n)
	}
}
