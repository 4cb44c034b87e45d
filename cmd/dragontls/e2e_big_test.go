//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
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

// readBig asks for a value of so many bytes and takes them at about 20 MB/s. meanwhile runs once they begin to come, and
// has to end before they do.
func (l *live) readBig(key string, size int, meanwhile func()) time.Duration {
	l.t.Helper()
	const pace = 20e6
	begun := time.Now()
	l.SetDeadline(begun.Add(5 * time.Minute))
	if _, err := io.WriteString(l, array("GET", key)); err != nil {
		l.t.Fatal(err)
	}
	header, err := l.r.ReadString('\n')
	if want := fmt.Sprintf("$%d\r\n", size); err != nil || header != want {
		l.t.Fatalf("got %.100q (%v), want %q", header, err, want)
	}
	done := make(chan struct{})
	go func() { // ends with what a client asks, which has a deadline
		defer close(done)
		meanwhile()
	}()
	for got := int64(0); got < int64(size)-1; {
		n, err := io.CopyN(io.Discard, l.r, min(256<<10, int64(size)-1-got))
		got += n
		if err != nil {
			l.t.Fatalf("after %d of %d bytes: %v", got, size, err)
		}
		time.Sleep(time.Until(begun.Add(time.Duration(float64(got) / pace * float64(time.Second)))))
	}
	select {
	case <-done:
	default:
		l.t.Error("another session that asks meanwhile waits for the end of the huge value")
		<-done
	}
	end := make([]byte, 3)
	if _, err := io.ReadFull(l.r, end); err != nil || string(end) != "x\r\n" {
		l.t.Fatalf("it ends in %q (%v)", end, err)
	}
	return time.Since(begun)
}

// tryGet may be called by any goroutine.
func (l *live) tryGet(key string) {
	l.SetDeadline(time.Now().Add(5 * time.Minute))
	if _, err := io.WriteString(l, array("GET", key)); err != nil {
		l.t.Errorf("write: %v", err)
		return
	}
	if reply, err := readReply(l.r); reply != "$-1" {
		l.t.Errorf("GET: %q %v", reply, err)
	}
}

// Who reads a huge value at a moderate pace costs bounded memory and few dials, and closes nobody.
func TestHugeValueBesideSmallOnes(t *testing.T) {
	size := envInt(t, "E2E_BIG", 64) << 20
	r := lockedRedis(t)
	p := sharing(t, r)
	r.observe("SETRANGE", "big", strconv.Itoa(size-1), "x")
	c := riders(t, p, 50, false)
	c.more(t, 20)
	most := 32.0 // MiB more than before: what SESSION_BUFFER allows, and garbage
	if racing() {
		most = 60
	}
	read := func(t *testing.T, dials, passing int, sessions func(read func(*live))) {
		before, opened, lanes := p.memory("VmRSS"), p.metrics().sum("backend_dials_total"), p.metrics().sum("commands_total", "path", "lane")
		p.forgetPeak()
		var took, longest time.Duration
		var passed []int // small sessions that did not wait while the huge value was read
		sessions(func(l *live) {
			l.t = t
			c.longest()
			other := p.live(p.clientTLS())
			other.t = t
			took = l.readBig("big", size, func() {
				for range 20 {
					other.tryGet("nothing")
				}
			})
			other.Close()
			c.more(t, 1)
			waits := c.longest()
			passed = append(passed, sort.Search(len(waits), func(i int) bool { return waits[i] > took/2 }))
			longest = max(longest, waits[len(waits)-1])
		})
		if slices.Min(passed) < passing {
			t.Errorf("%v of %d sessions went on meanwhile, want %d", passed, len(c.all), passing)
		}
		peak, m := p.memory("VmHWM"), p.metrics()
		t.Logf("%d MiB in %v, %.0f MB/s; memory %.0f MiB before, %.0f at most; %v dials, %v commands on lanes, %v of %d sessions went on meanwhile; the longest wait for a pipeline %v",
			size>>20, took.Round(time.Millisecond), float64(size)/1e6/took.Seconds(), before, peak, m.sum("backend_dials_total")-opened,
			m.sum("commands_total", "path", "lane")-lanes, passed, len(c.all), longest)
		if peak > before+most {
			t.Errorf("memory grew by %.0f MiB, want %v at most", peak-before, most)
		}
		if got := m.sum("backend_dials_total") - opened; got > float64(dials) {
			t.Errorf("got %v dials, want %d at most", got, dials)
		}
	}
	// Dials: a lane in place of the retired one, those that grow with load, the session's own connection.
	const own = 4
	one := p.live(p.clientTLS())
	t.Run("once", func(t *testing.T) { read(t, own, 50, func(read func(*live)) { read(one) }) })
	t.Run("in a loop", func(t *testing.T) {
		read(t, own, 50, func(read func(*live)) {
			for range 2 {
				read(one)
			}
		})
		one.t = t
		one.ping()
	})
	t.Run("by new sessions", func(t *testing.T) {
		read(t, 2*own, 50, func(read func(*live)) {
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
