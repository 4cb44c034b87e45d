//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// pipe is a named pipe, whose ends are opened one by one: what one end is told (not to block) is the others' affair in
// an unnamed one.
type pipe struct {
	t    *testing.T
	path string
	read *os.File
}

func newPipe(t *testing.T) *pipe {
	t.Helper()
	p := &pipe{t: t, path: filepath.Join(t.TempDir(), "stderr")}
	if err := syscall.Mkfifo(p.path, 0o600); err != nil {
		t.Fatal(err)
	}
	p.listen()
	t.Cleanup(func() { p.read.Close() })
	return p
}

// listen opens the reading end.
func (p *pipe) listen() {
	p.t.Helper()
	fd, err := syscall.Open(p.path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	p.read = os.NewFile(uintptr(fd), p.path)
}

// fill leaves no room for a single byte.
func (p *pipe) fill() {
	p.t.Helper()
	fd, err := syscall.Open(p.path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer syscall.Close(fd)
	for _, size := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = syscall.Write(fd, make([]byte, size))
		}
		if err != syscall.EAGAIN {
			p.t.Fatal(err)
		}
	}
}

// loggingTo starts `dragontls serve` with the pipe as its stderr, and returns once it listens. The pipe is read no further than
// that line.
func loggingTo(t *testing.T, out *pipe, backend string, vars ...string) *instance {
	t.Helper()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := os.OpenFile(out.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	p := &process{t: t, cmd: exec.Command(path, "serve"), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = dir, environ(append(proxyVars(backend), vars...)...), stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process, which Cleanup kills
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	})
	i := &instance{process: p, dir: dir}
	out.read.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		line, err := readLine(out.read)
		if err != nil {
			t.Fatalf("%v after %q", err, line)
		}
		var fields map[string]any
		if json.Unmarshal(line, &fields) == nil && fields["message"] == "listening" {
			i.addr, _ = fields["address"].(string)
			i.admin, _ = fields["admin"].(string)
			return i
		}
	}
}

// readLine takes nothing beyond the line: the rest is for the next reader of the pipe.
func readLine(r io.Reader) (line []byte, err error) {
	for one := make([]byte, 1); err == nil && !bytes.HasSuffix(line, []byte("\n")); {
		if _, err = io.ReadFull(r, one); err == nil {
			line = append(line, one[0])
		}
	}
	return line, err
}

// refuse makes n handshakes that are refused, and logged: their clients send no certificate.
func (p *instance) refuse(n int) {
	p.t.Helper()
	for range n {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			p.t.Fatal(err)
		}
		io.WriteString(c, "PING\r\n")
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			p.t.Fatalf("a refused client: %v", err)
		}
		c.Close()
	}
	eventually(p.t, "all are counted", func() bool {
		return p.metrics().sum("handshakes_total", "reason", "plaintext") >= float64(n)
	})
}

func TestNobodyReadsTheLog(t *testing.T) {
	for _, mode := range []string{"shared", "paired"} {
		t.Run(mode, func(t *testing.T) {
			out := newPipe(t)
			p := loggingTo(t, out, redisServer(t).url(), "TLS_CRL_FILE=pki/ca.crl", "BACKEND_MODE="+mode, "AUDIT_LOG=commands", "LOG_LEVEL=debug").wantReady()
			out.fill()
			victim := session(t, p)
			wantAnswer(t, victim, "PING", "+PONG\r\n")
			before := p.metrics().sum("go_goroutines")
			p.refuse(700)
			if n := p.metrics().sum("go_goroutines"); n > before+100 {
				t.Errorf("%v goroutines, %v before 700 refused handshakes", n, before)
			}
			serial := func() string {
				c := session(t, p)
				defer c.Close()
				if err := c.Handshake(); err != nil {
					return err.Error()
				}
				return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
			}
			old := serial()
			dragontls(t, p.dir, []string{"pki", "rotate"}, nil).wantExit(exitOK)
			eventually(t, "the rotation", func() bool { return serial() != old })
			dragontls(t, p.dir, []string{"pki", "revoke", "client"}, nil).wantExit(exitOK)
			if got, err := io.ReadAll(victim); len(got) != 0 {
				t.Errorf("the revoked session read %q (%v)", got, err)
			}
			p.signal(syscall.SIGTERM)
			p.wantExit(exitOK)
		})
	}
}

// A log that nobody reads delays no second signal, and no fault.
func TestNobodyReadsTheLogAtTheEnd(t *testing.T) {
	out := newPipe(t)
	p := loggingTo(t, out, redisServer(t).url(), "DRAIN_DELAY=1h").wantReady()
	out.fill()
	p.signal(syscall.SIGTERM)
	eventually(t, "it drains", func() bool { code, _ := p.get("/readyz"); return code == http.StatusServiceUnavailable })
	p.signal(syscall.SIGTERM)
	p.wantExit(exitFailed)
}

func TestTheReaderOfTheLogIsGone(t *testing.T) {
	out := newPipe(t)
	p := loggingTo(t, out, redisServer(t).url(), "AUDIT_LOG=commands").wantReady()
	out.read.Close()
	p.refuse(20)
	c := session(t, p)
	wantAnswer(t, c, "PING", "+PONG\r\n")
	if n := p.metrics().sum("log_dropped_total"); n < 5 { // of one address, so many refusals a second have lines of their own
		t.Errorf("%v lines dropped, want 5 at least", n)
	}
	// Another reader comes: it gets whole lines, and learns how many are missing.
	out.listen()
	out.read.SetReadDeadline(time.Now().Add(30 * time.Second))
	p.refuse(1)
	gap := false
	for lines := bufio.NewScanner(out.read); lines.Scan(); {
		var fields map[string]any
		if err := json.Unmarshal(lines.Bytes(), &fields); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if gap = gap || fields["message"] == "log lines were dropped" && fields["lines"].(float64) >= 5; gap {
			break
		}
	}
	if !gap {
		t.Error("nothing tells of the lines that were dropped")
	}
	out.read.Close()
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
}

// The last lines are there at every end, after all the others.
func TestTheLastLinesAreWritten(t *testing.T) {
	r := redisServer(t)
	for _, tt := range []struct {
		name string
		vars []string
		end  func(*instance)
		code int
	}{
		{"drained", nil, func(p *instance) { p.signal(syscall.SIGTERM) }, exitOK},
		{"a second signal", []string{"DRAIN_DELAY=1h"}, func(p *instance) {
			p.signal(syscall.SIGTERM)
			p.wantLog("draining")
			p.signal(syscall.SIGTERM)
		}, exitFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serving(t, r.url(), append(tt.vars, "AUDIT_LOG=commands")...)
			c := session(t, p)
			io.WriteString(c, strings.Repeat("PING\r\n", 500))
			if _, err := io.ReadFull(c, make([]byte, 500*len("+PONG\r\n"))); err != nil {
				t.Fatal(err)
			}
			tt.end(p)
			p.wantExit(tt.code)
			var last string
			for line := range strings.Lines(p.stderr.String()) {
				if last = line; !json.Valid([]byte(line)) {
					t.Errorf("no whole line: %s", line)
				}
			}
			if !strings.Contains(last, `"message":"stopped"`) {
				t.Errorf("the last line is %s", last)
			}
			if n := len(p.logged("command")); n != 500 {
				t.Errorf("%d commands in the audit log, want 500", n)
			}
		})
	}
}
