package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is a RESP server in clear that lets a test decide what it answers. It ends with the test.
type scripted struct {
	net.Listener
	mu     sync.Mutex
	values map[string]string
	count  atomic.Int64
	// answer may replace a reply; n counts commands from 1. After "" the connection is closed.
	answer func(n int64, args []string, reply string) string
}

func newScripted(t *testing.T, answer func(n int64, args []string, reply string) string) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{Listener: l, values: map[string]string{}, answer: answer}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return s
}

func (s *scripted) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		args, err := readStrings(r)
		if err != nil {
			return
		}
		reply := s.answer(s.count.Add(1), args, s.reply(args))
		if _, err := io.WriteString(conn, reply); err != nil || reply == "" {
			return
		}
	}
}

func readStrings(r *bufio.Reader) (args []string, err error) {
	all, err := readCommand(r)
	for _, arg := range all {
		args = append(args, string(arg))
	}
	return args, err
}

func (s *scripted) reply(args []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch args[0] {
	case "SET":
		s.values[args[1]] = args[2]
		return "+OK\r\n"
	case "GET":
		return string(appendBulk(nil, s.values[args[1]]))
	}
	return "+PONG\r\n"
}

// loadUntil runs the generator in this process until a window holds what is waited for, and returns that window. How
// much fits into one window is up to the machine.
func loadUntil(t *testing.T, w work, holds func(window) bool) (last window) {
	t.Helper()
	w.Windows = slices.Repeat([]time.Duration{100 * time.Millisecond}, 1200)
	spec, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	in, tell := io.Pipe()
	out, events := io.Pipe()
	var running sync.WaitGroup
	running.Go(func() { // ends with its input, which is closed below
		generate(in, events)
		events.Close()
	})
	defer running.Wait()
	defer io.Copy(io.Discard, out) // else the generator takes its parent for gone, and exits
	defer tell.Close()
	if _, err := tell.Write(append(spec, '\n')); err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(out); ; {
		var e event
		switch err := d.Decode(&e); {
		case err != nil:
			t.Fatalf("no such window in two minutes; the last: %+v", last)
		case e.Event == "error":
			t.Fatal(e.Error)
		case e.Window == nil:
			continue
		}
		if last = *e.Window; holds(last) {
			return last
		}
		if _, err := tell.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
	}
}

func honest(_ int64, _ []string, reply string) string { return reply }

func gets(address string) work {
	return work{Kind: closedLoop, Address: address, Command: getCommand, Size: 64, Connections: 2, Pipeline: 4}
}

func TestGeneratorFindsNoFaultWithHonestReplies(t *testing.T) {
	s := newScripted(t, honest)
	for _, command := range []string{getCommand, setCommand, mixedCommand} {
		for _, size := range []int{64, 64 << 10} {
			w := gets(s.Addr().String())
			w.Command, w.Size = command, size
			got := loadUntil(t, w, func(w window) bool { return w.Count > 0 || len(w.Errors) > 0 })
			if len(got.Errors) != 0 {
				t.Errorf("%s %d B: got %d commands, errors %v", command, size, got.Count, got.Errors)
			}
			if got.P50 <= 0 || got.P99 < got.P50 || got.Max < got.P99 {
				t.Errorf("%s %d B: got p50 %v, p99 %v, max %v", command, size, got.P50, got.P99, got.Max)
			}
		}
	}
}

func TestGeneratorNoticesEveryKindOfWrongReply(t *testing.T) {
	for _, test := range []struct {
		name, want string
		command    string
		replace    func(reply string) string
	}{
		{"another value of the same length", "wrong reply", getCommand, func(r string) string { return strings.Replace(r, "dragonbench", "somebody ls", 1) }},
		{"a shorter value", "wrong reply", getCommand, func(string) string { return "$1\r\nx\r\n" }},
		{"null", "wrong reply", getCommand, func(string) string { return "$-1\r\n" }},
		{"another type", "wrong reply", setCommand, func(string) string { return ":1\r\n" }},
		{"an error", "reply LOADING", getCommand, func(string) string { return "-LOADING not yet\r\n" }},
		{"an old value of its own", "wrong reply", mixedCommand, func(r string) string {
			if r == "+OK\r\n" {
				return r
			}
			return string(appendBulk(nil, value("0/0", 64)))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScripted(t, func(n int64, args []string, reply string) string {
				if n > keys+1 && n%5 == 0 { // not while it fills
					return test.replace(reply)
				}
				return reply
			})
			w := gets(s.Addr().String())
			w.Command = test.command
			// The generator goes on after a wrong reply, so that a window comes to hold both. 100 replies hold many wrong ones.
			got := loadUntil(t, w, func(w window) bool { return w.Count > 0 && len(w.Errors) > 0 || w.Count > 100 })
			if got.Errors[test.want] == 0 {
				t.Errorf("got errors %v, want %q", got.Errors, test.want)
			}
		})
	}
}

func TestGeneratorSaysWhenNobodyListens(t *testing.T) {
	spec, err := json.Marshal(gets(ownAddress()))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := generate(strings.NewReader(string(spec)+"\n"), &out); code != 1 || !strings.Contains(out.String(), "refused") {
		t.Errorf("got code %d and %s, want 1 and connection refused", code, &out)
	}
}

// A server that stalls once is asked at a fixed rate: every command that was due meanwhile waited. A closed loop would
// have seen one slow command. Here the stall of a minute is over, and what was due in its first half goes out now.
func TestOpenLoopCountsThoseWhoQueueBehindAStall(t *testing.T) {
	const stall, due = time.Minute, 500
	s := newScripted(t, honest)
	g := &generator{work: gets(s.Addr().String()), rec: newRecorder()}
	p := &pacer{started: time.Now().Add(-stall), interval: stall / 2 / due, queues: []*queue{{wake: make(chan struct{}, 1)}}}
	p.queues[0].due.Store(due)
	ctx, cancel := context.WithCancel(context.Background())
	var driving sync.WaitGroup
	sources := g.sources()
	d := &driver{generator: g, shard: g.rec.shard(0), fresh: func() source { return sources(0) }}
	if err := g.fill(ctx); err != nil {
		t.Fatal(err)
	}
	driving.Go(func() { p.drive(ctx, d, 0) }) // ends with ctx
	for end := time.Now().Add(time.Minute); p.queues[0].done.Load() < due && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	driving.Wait()
	got := g.rec.window(time.Second)
	if got.Count != due || len(got.Errors) != 0 {
		t.Errorf("got %d commands, errors %v, want %d and none", got.Count, got.Errors, due)
	}
	// The last of them was due half a stall ago, and the recorder keeps three digits.
	if least := 0.99e6 * (stall / 2).Seconds(); got.P50 < 1.4*least || got.P99 < 1.9*least {
		t.Errorf("got p50 of %v us, p99 of %v us, want at least %v and %v", got.P50, got.P99, 1.4*least, 1.9*least)
	}
}

func TestOpenLoopCountsThoseWhoAreNeverAnswered(t *testing.T) {
	release := make(chan struct{})
	s := newScripted(t, func(n int64, _ []string, reply string) string {
		if n == 2*keys {
			<-release
		}
		return reply
	})
	t.Cleanup(func() { close(release) }) // before the server's own
	w := gets(s.Addr().String())
	w.Kind, w.Rate, w.Connections, w.Pipeline = openLoop, 1000, 1, 1
	// Their waits grow from window to window.
	loadUntil(t, w, func(w window) bool { return w.Unanswered > 1 && w.Max > 200e3 })
}

func TestPacerGivesEachConnectionItsTurn(t *testing.T) {
	started := time.Now()
	p := &pacer{started: started, interval: time.Millisecond, queues: make([]*queue, 3)}
	for _, test := range []struct {
		connection int
		command    int64
		want       time.Duration
	}{{0, 0, 1}, {1, 0, 2}, {2, 0, 3}, {0, 1, 4}, {2, 2, 9}} {
		if got := p.dueAt(test.connection, test.command).Sub(started); got != test.want*time.Millisecond {
			t.Errorf("connection %d, command %d: got %v, want %d ms", test.connection, test.command, got, test.want)
		}
	}
}
