//go:build linux

package main

import (
	native "encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reads tells of each time that a process opens a file, by inotify(7).
type reads struct {
	events *os.File
	name   string
}

func watchReads(t testing.TB, path string) *reads {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	r := &reads{events: os.NewFile(uintptr(fd), "inotify"), name: filepath.Base(path)}
	t.Cleanup(func() { r.events.Close() })
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return r
}

// more waits until the file has been opened n times since the last call. What was there before may count as one.
func (r *reads) more(t testing.TB, n int) {
	t.Helper()
	if err := r.events.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 64<<10)
	if _, err := r.events.Read(buffer); err != nil { // what has gathered
		t.Fatal(err)
	}
	for n > 0 {
		length, err := r.events.Read(buffer)
		if err != nil {
			t.Fatalf("%s was not read %d times more: %v", r.name, n, err)
		}
		for events := buffer[:length]; len(events) >= unix.SizeofInotifyEvent; {
			end := unix.SizeofInotifyEvent + int(native.NativeEndian.Uint32(events[12:]))
			if strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00") == r.name {
				n--
			}
			events = events[end:]
		}
	}
}

func TestBadFilesChangeNothingThatIsServed(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "bad files")
	dir := t.TempDir()
	good := issue(t, ca)
	writeBoth(t, dir, good)
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	p := ownCA(t, ca, redisServer(t).url(), "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key, "TLS_RELOAD_INTERVAL=100ms")
	p.wantReady()
	reads := watchReads(t, key)
	client := p.clientTLS()
	served := func() string {
		t.Helper()
		st, err := handshake(p.addr, client)
		if err != nil {
			t.Fatal(err)
		}
		return st.PeerCertificates[0].SerialNumber.Text(16)
	}
	const refused = "reload refused, the last good certificates stay"
	for _, c := range []struct {
		name, reason string
		damage       func()
	}{
		{"a key of another certificate", "mismatch", func() { rename(t, key, issue(t, ca).key) }},
		{"a truncated certificate", "parse", func() { rename(t, cert, good.cert[:len(good.cert)/2]) }},
		{"no file", "unreadable", func() { os.Remove(cert) }},
		{"an empty key", "parse", func() { write(t, key, nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			logged := len(p.logged(refused))
			counted := p.metrics().sum("reload_total", "result", "failed", "reason", c.reason)
			c.damage()
			eventually(t, "the fault is counted", func() bool {
				return p.metrics().sum("reload_total", "result", "failed", "reason", c.reason) > counted
			})
			if got := served(); got != good.serial {
				t.Errorf("got serial %s, want that of before", got)
			}
			if ok := p.metrics().sum("last_reload_successful"); ok != 0 {
				t.Errorf("got last_reload_successful %v, want 0", ok)
			}
			if code, why := p.get("/readyz"); code != 200 {
				t.Errorf("/readyz: %d %s, want ready: what is served is good", code, why)
			}
			reads.more(t, 10) // polls read the same fault again
			if got := len(p.logged(refused)); got != logged+1 {
				t.Errorf("got %d log lines, want 1:\n%v", got-logged, p.logged(refused)[logged:])
			}
			if got := p.metrics().sum("reload_total", "result", "failed", "reason", c.reason); got != counted+1 {
				t.Errorf("got %v counted, want 1", got-counted)
			}
			// The fault is gone without a signal: it is retried.
			ok := p.metrics().sum("reload_total", "result", "ok")
			good = issue(t, ca)
			rename(t, key, good.key)
			rename(t, cert, good.cert)
			eventually(t, "reloaded", func() bool { return p.metrics().sum("reload_total", "result", "ok") > ok })
			if got := served(); got != good.serial {
				t.Errorf("got serial %s, want the new one", got)
			}
		})
	}
	p.wantEnd()
}
