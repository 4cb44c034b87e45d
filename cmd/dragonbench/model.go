package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// modelCommand is the hidden subcommand that runs the model: dragonbench model BATCH EACH --bind=HOST --port=PORT.
const modelCommand = "model"

// pace is the time that a model takes on each connection, whatever the others do: batch for what it reads at once, and each
// for each command of that.
type pace struct{ batch, each time.Duration }

// Dragonfly 1.40 with two threads answered 1 command in 71 us and 50 in 116 us on one connection, and as soon on two at once.
var dragonflyPace = pace{70 * time.Microsecond, 900 * time.Nanosecond}

// slowKeyPrefix begins the names of keys that take long to read: "dragonbench:slow:200ms" takes 200 ms, on its own connection
// only.
const slowKeyPrefix = "dragonbench:slow:"

// slowPace is that of a backend that does much work for each command.
var slowPace = pace{0, 100 * time.Microsecond}

// modelPrefix begins the name of a model with times of its own.
const modelPrefix = "model:"

func (p pace) String() string { return fmt.Sprintf(modelPrefix+"%v,%v", p.batch, p.each) }

// parsePace reads "model", "slow" or "model:70us,900ns".
func parsePace(name string) (pace, error) {
	switch name {
	case "model":
		return dragonflyPace, nil
	case "slow":
		return slowPace, nil
	}
	times, ok := strings.CutPrefix(name, modelPrefix)
	batch, each, both := strings.Cut(times, ",")
	if !ok || !both {
		return pace{}, fmt.Errorf("%q: redis-server, dragonfly, model, slow or model:BATCH,EACH, such as %s", name, dragonflyPace)
	}
	b, err := time.ParseDuration(batch)
	e, err2 := time.ParseDuration(each)
	if err = errors.Join(err, err2); err != nil {
		return pace{}, fmt.Errorf("%q: two times, such as %s: %w", name, dragonflyPace, err)
	}
	if b < 0 || e < 0 {
		return pace{}, fmt.Errorf("%q: two times of 0 or more, such as %s", name, dragonflyPace)
	}
	return pace{b, e}, nil
}

// program is this one, running as a model with p.
func (p pace) program() (backendProgram, error) {
	path, err := os.Executable()
	if err != nil {
		return backendProgram{}, err
	}
	return backendProgram{path: path, model: &p}, nil
}

func (p pace) command(path, host, port string) *exec.Cmd {
	return exec.Command(path, modelCommand, p.batch.String(), p.each.String(), net.JoinHostPort(host, port))
}

// serveModel is the subcommand.
func serveModel(args []string) int {
	if len(args) != 3 {
		fmt.Fprintln(os.Stderr, "dragonbench model: want BATCH EACH ADDRESS")
		return exitUsage
	}
	p, err := parsePace(modelPrefix + args[0] + "," + args[1])
	if err == nil {
		var ln net.Listener
		if ln, err = net.Listen("tcp", args[2]); err == nil {
			err = (&model{pace: p}).serve(ln)
		}
	}
	fmt.Fprintf(os.Stderr, "dragonbench model: %v\n", err)
	return exitFailed
}

// model answers the commands that the load generator and proxies send. It keeps values in memory.
type model struct {
	pace   pace
	mu     sync.RWMutex
	values map[string][]byte // guarded by mu
}

// serve ends with an error of the listener.
func (m *model) serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go m.converse(c) // ends with the connection
	}
}

// converse answers one client.
func (m *model) converse(c net.Conn) {
	defer c.Close()
	sleep, err := newNap()
	if err != nil {
		fmt.Fprintf(os.Stderr, "dragonbench model: %v\n", err)
		return
	}
	defer sleep.close()
	r, out := bufio.NewReaderSize(c, 64<<10), []byte(nil)
	s := modelSession{model: m}
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		out = out[:0]
		n := 0
		for r.Buffered() > 0 { // a command may go on in the next read
			args, err := readCommand(r)
			if err != nil {
				_, _ = c.Write([]byte("-ERR Protocol error: arrays of bulk strings only\r\n")) // it may be gone
				return
			}
			out = s.answer(out, args)
			n++
		}
		if err := sleep.take(m.pace.batch + time.Duration(n)*m.pace.each + s.slow); err != nil {
			return
		}
		s.slow = 0
		if _, err := c.Write(out); err != nil || s.quit {
			return
		}
	}
}

var errModelCommand = errors.New("no array of bulk strings")

// readCommand reads an array of bulk strings.
func readCommand(r *bufio.Reader) (args [][]byte, err error) {
	n, err := readLength(r, '*')
	if err != nil || n < 1 || n > 1<<16 {
		return nil, errors.Join(errModelCommand, err)
	}
	for range n {
		size, err := readLength(r, '$')
		if err != nil || size < 0 || size > 512<<20 {
			return nil, errors.Join(errModelCommand, err)
		}
		arg := make([]byte, size+2)
		if _, err := io.ReadFull(r, arg); err != nil {
			return nil, err
		}
		args = append(args, arg[:size])
	}
	return args, nil
}

func readLength(r *bufio.Reader, kind byte) (int, error) {
	line, err := r.ReadSlice('\n')
	if err != nil || len(line) < 4 || line[0] != kind {
		return 0, errors.Join(errModelCommand, err)
	}
	return strconv.Atoi(string(bytes.TrimRight(line[1:], "\r\n")))
}

// modelSession is what a connection remembers.
type modelSession struct {
	model  *model
	multi  bool
	queued []byte // replies to what MULTI holds
	count  int    // of them
	quit   bool
	slow   time.Duration // what slow keys of this batch add to its time
}

// answer appends the reply to a command.
func (s *modelSession) answer(out []byte, args [][]byte) []byte {
	name := strings.ToUpper(string(args[0]))
	switch {
	case name == "EXEC" && s.multi:
		out = fmt.Appendf(out, "*%d\r\n%s", s.count, s.queued)
		s.multi, s.queued, s.count = false, nil, 0
		return out
	case s.multi:
		s.queued = s.reply(s.queued, name, args)
		s.count++
		return append(out, "+QUEUED\r\n"...)
	}
	return s.reply(out, name, args)
}

// slowKeyTime is how much longer the GET of a key takes: no longer, unless its name is slowKeyPrefix and a time.
func slowKeyTime(key []byte) time.Duration {
	text, ok := bytes.CutPrefix(key, []byte(slowKeyPrefix))
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return 0
	}
	return max(0, d)
}

func (s *modelSession) reply(out []byte, name string, args [][]byte) []byte {
	m := s.model
	switch {
	case name == "GET" && len(args) == 2:
		s.slow += slowKeyTime(args[1])
		m.mu.RLock()
		value, ok := m.values[string(args[1])]
		m.mu.RUnlock()
		if !ok {
			return append(out, "$-1\r\n"...)
		}
		return appendBulk(out, value)
	case name == "SET" && len(args) == 3:
		m.mu.Lock()
		if m.values == nil {
			m.values = make(map[string][]byte)
		}
		m.values[string(args[1])] = args[2]
		m.mu.Unlock()
	case name == "PING" && len(args) == 1:
		return append(out, "+PONG\r\n"...)
	case name == "ECHO" && len(args) == 2, name == "PING" && len(args) == 2:
		return appendBulk(out, args[1])
	case name == "MULTI":
		s.multi = true
	case name == "HELLO" && len(args) > 1 && string(args[1]) == "3":
		return append(out, "%1\r\n$5\r\nproto\r\n:3\r\n"...)
	case name == "HELLO":
		return append(out, "*2\r\n$5\r\nproto\r\n:2\r\n"...)
	case name == "QUIT":
		s.quit = true
	case name == "AUTH", name == "SELECT", name == "CLIENT", name == "FLUSHALL":
	default:
		return fmt.Appendf(out, "-ERR unknown command '%.64q'\r\n", name)
	}
	return append(out, "+OK\r\n"...)
}
