package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"strconv"
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
	// answer may replace a reply; n counts commands from 1.
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
		args, err := readCommand(r)
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, s.answer(s.count.Add(1), args, s.reply(args))); err != nil {
			return
		}
	}
}

func readCommand(r *bufio.Reader) (args []string, err error) {
	number := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number()
	for ; n > 0 && err == nil; n-- {
		var size int
		if size, err = number(); err != nil {
			break
		}
		b := make([]byte, size+2)
		if _, err = io.ReadFull(r, b); err == nil {
			args = append(args, string(b[:size]))
		}
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

// load runs the generator in this process and returns its windows.
func load(t *testing.T, w work) []window {
	t.Helper()
	windows, err := loadOrError(t, w)
	if err != nil {
		t.Fatal(err)
	}
	return windows
}

type generatorError string

func (e generatorError) Error() string { return string(e) }

func loadOrError(t *testing.T, w work) (windows []window, err error) {
	t.Helper()
	spec, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	generate(strings.NewReader(string(spec)+strings.Repeat("\n", 1+len(w.Windows))), &out)
	for d := json.NewDecoder(&out); ; {
		var e event
		if d.Decode(&e) != nil {
			return windows, err
		}
		if e.Event == "error" {
			err = generatorError(e.Error)
		}
		if e.Window != nil {
			windows = append(windows, *e.Window)
		}
	}
}

func honest(_ int64, _ []string, reply string) string { return reply }

func gets(address string) work {
	return work{Kind: closedLoop, Address: address, Command: getCommand, Size: 64, Connections: 2, Pipeline: 4,
		Windows: []time.Duration{100 * time.Millisecond}}
}

func TestGeneratorFindsNoFaultWithHonestReplies(t *testing.T) {
	s := newScripted(t, honest)
	for _, command := range []string{getCommand, setCommand, mixedCommand} {
		for _, size := range []int{64, 64 << 10} {
			w := gets(s.Addr().String())
			w.Command, w.Size = command, size
			got := load(t, w)[0]
			if got.Count == 0 || len(got.Errors) != 0 {
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
			got := load(t, w)[0]
			if got.Errors[test.want] == 0 {
				t.Errorf("got errors %v, want %q", got.Errors, test.want)
			}
			if got.Count == 0 {
				t.Error("it did not go on")
			}
		})
	}
}

func TestGeneratorSaysWhenNobodyListens(t *testing.T) {
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loadOrError(t, gets(address)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want connection refused", err)
	}
}

// A server that stalls once is asked at a fixed rate: everybody who was due meanwhile waited. A closed loop would have
// seen one slow command.
func TestOpenLoopCountsThoseWhoQueueBehindAStall(t *testing.T) {
	const rate, stall = 500, 400 * time.Millisecond
	s := newScripted(t, func(n int64, _ []string, reply string) string {
		if n == 2*keys {
			time.Sleep(stall)
		}
		return reply
	})
	w := gets(s.Addr().String())
	w.Kind, w.Rate, w.Connections, w.Pipeline = openLoop, rate, 1, 1
	w.Windows = []time.Duration{time.Second}
	got := load(t, w)[0]
	if len(got.Errors) != 0 {
		t.Errorf("got errors %v", got.Errors)
	}
	// A fifth of those due in the second waited for more than half of the stall.
	if got.P99 < 1e6*(stall/2).Seconds() {
		t.Errorf("got p99 of %v us over %d commands, want at least half of %v", got.P99, got.Count, stall)
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
	w.Windows = []time.Duration{500 * time.Millisecond}
	got := load(t, w)[0]
	if got.Unanswered == 0 || got.Max < 100e3 {
		t.Errorf("got %d unanswered, max %v us", got.Unanswered, got.Max)
	}
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
