//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// memory is a figure of /proc/PID/status, in MiB.
func (p *process) memory(name string) float64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				p.t.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	p.t.Fatalf("no %s", name)
	return 0
}

// forgetPeak begins VmHWM anew.
func (p *process) forgetPeak() {
	p.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		p.t.Fatal(err)
	}
}

// readBig asks for a value of so many bytes and takes a sixteenth, then no more until meanwhile returns, then the rest.
func (l *live) readBig(key string, size int, meanwhile func()) {
	l.t.Helper()
	l.SetDeadline(time.Now().Add(3 * patience))
	if _, err := io.WriteString(l, array("GET", key)); err != nil {
		l.t.Fatal(err)
	}
	header, err := l.r.ReadString('\n')
	if want := fmt.Sprintf("$%d\r\n", size); err != nil || header != want {
		l.t.Fatalf("got %.100q (%v), want %q", header, err, want)
	}
	part := int64(size / 16)
	if n, err := io.CopyN(io.Discard, l.r, part); err != nil {
		l.t.Fatalf("after %d of %d bytes: %v", n, size, err)
	}
	meanwhile()
	if n, err := io.CopyN(io.Discard, l.r, int64(size)-1-part); err != nil {
		l.t.Fatalf("after %d of %d bytes: %v", part+n, size, err)
	}
	end := make([]byte, 3)
	if _, err := io.ReadFull(l.r, end); err != nil || string(end) != "x\r\n" {
		l.t.Fatalf("it ends in %q (%v)", end, err)
	}
}

// A client that takes a huge value more slowly than the backend sends it costs bounded memory and few dials, makes nobody
// wait and closes nobody.
func TestHugeValueBesideSmallOnes(t *testing.T) {
	t.Parallel()
	size := envInt(t, "E2E_BIG", 64) << 20
	r := lockedRedis(t)
	p := sharing(t, r, "WRITE_TIMEOUT=10m") // the test decides how long the client does not read
	r.observe("SETRANGE", "big", strconv.Itoa(size-1), "x")
	c := riders(t, p, 50, false)
	c.more(t, 20)
	// MiB more than before. What may be held is SESSION_BUFFER of each reader, 4 MiB, and of a value that were held 15/16: the
	// rest is garbage, and the race detector has four bytes and more for each.
	most := 32.0
	if racing() {
		most = 96
	}
	read := func(t *testing.T, sessions func(read func(*live))) {
		before, opened := p.memory("VmRSS"), p.metrics().sum("backend_dials_total")
		p.forgetPeak()
		sessions(func(l *live) {
			l.t = t
			other := p.live(p.clientTLS())
			other.t = t
			l.readBig("big", size, func() {
				for range 20 {
					other.want(other.ask("GET", "nothing"), "$-1")
				}
				c.more(t, 2)
			})
			other.Close()
		})
		peak, dials := p.memory("VmHWM"), p.metrics().sum("backend_dials_total")-opened
		t.Logf("%d MiB; memory %.0f MiB before, %.0f at most; %v dials; %s", size>>20, before, peak, dials, c)
		if peak > before+most {
			t.Errorf("memory grew by %.0f MiB, want %v at most", peak-before, most)
		}
		// A connection of the session's own, and lanes: one in place of the retired one, and those that load asks for. It
		// would be 50 if the small sessions left theirs.
		if dials > 20 {
			t.Errorf("got %v dials, want 20 at most", dials)
		}
	}
	one := p.live(p.clientTLS())
	t.Run("once", func(t *testing.T) { read(t, func(read func(*live)) { read(one) }) })
	t.Run("in a loop", func(t *testing.T) {
		read(t, func(read func(*live)) {
			for range 2 {
				read(one)
			}
		})
		one.t = t
		one.ping()
	})
	t.Run("by new sessions", func(t *testing.T) {
		read(t, func(read func(*live)) {
			for range 2 {
				l := p.live(p.clientTLS())
				read(l)
				l.Close()
			}
		})
	})
	c.end(t)
	if c.lost.Load()+c.unsent.Load() > 0 {
		t.Errorf("got %s", c)
	}
	for _, reason := range []string{"slow_client", "lane_error", "backend_closed", "backend_error"} {
		if n := p.metrics().sum("sessions_closed_total", "reason", reason); n > 0 {
			t.Errorf("%v sessions were closed: %s", n, reason)
		}
	}
	p.wantEnd()
}
