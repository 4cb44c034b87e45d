package backend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// stage is a stable address, behind which a test puts one process or another.
type stage struct {
	*witnessed
	mu sync.Mutex
	// guarded by mu
	on    *process
	conns []*staged

	accepted chan struct{} // gets one for each connection
}

// process is a backend that knows which channels its own connections have subscribed to.
type process struct {
	subscribers map[string]int
	answers     func(name string) string // in place of what a process answers, unless that is empty; nil: nothing
	silent      bool                     // it stands still
	hold        chan struct{}            // it answers only when this is closed; nil: at once
}

// staged is a connection to the process that was on the stage when it came.
type staged struct {
	net.Conn
	to    *process
	muted bool
}

func newStage(t *testing.T, on *process) *stage {
	t.Helper()
	s := &stage{witnessed: &witnessed{t: t, over: make(chan *Life, 16)}, on: on, accepted: make(chan struct{}, 64)}
	ln := listen(t, "127.0.0.1:0")
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			at := &staged{Conn: c, to: s.on}
			s.conns = append(s.conns, at)
			s.mu.Unlock()
			s.accepted <- struct{}{}
			go s.serve(at) // ends with the connection
		}
	}()
	s.follow(ln.Addr().String())
	return s
}

func newProcess() *process { return &process{subscribers: map[string]int{}} }

func (s *stage) serve(c *staged) {
	defer c.Close()
	r := bufio.NewReader(c)
	subscribed := ""
	for {
		var n int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
			break
		}
		args := make([]string, n)
		for i := range args {
			var size int
			fmt.Fscanf(r, "$%d\r\n", &size)
			b := make([]byte, size+2)
			io.ReadFull(r, b)
			args[i] = string(b[:size])
		}
		if c.to.hold != nil {
			<-c.to.hold
		}
		s.mu.Lock()
		reply := "+PONG\r\n"
		switch {
		case c.to.answers != nil && c.to.answers(args[0]) != "":
			reply = c.to.answers(args[0])
		case args[0] == "SUBSCRIBE":
			subscribed = args[1]
			c.to.subscribers[subscribed]++
			reply = fmt.Sprintf("*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n", len(subscribed), subscribed)
		case args[0] == "PUBSUB":
			reply = fmt.Sprintf("*2\r\n$%d\r\n%s\r\n:%d\r\n", len(args[2]), args[2], c.to.subscribers[args[2]])
		case subscribed != "":
			reply = "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
		}
		muted := c.muted || c.to.silent
		s.mu.Unlock()
		if !muted {
			io.WriteString(c, reply)
		}
	}
	s.mu.Lock()
	c.to.subscribers[subscribed]--
	s.mu.Unlock()
}

// put has connections that come from here on lead to another process.
func (s *stage) put(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = p
}

// mute has the connections that are there say nothing more.
func (s *stage) mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.muted = true
	}
}

// came is how many connections have come so far.
func (s *stage) came() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *stage) life() *Life {
	s.t.Helper()
	l, err := s.Life(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// goesOn wants the life to be confirmed, and nobody to be told that one is over.
func (s *stage) goesOn(l *Life) {
	s.t.Helper()
	if err := l.Confirm(s.t.Context()); err != nil || l.Over() || len(s.over) > 0 {
		s.t.Fatalf("the life is over: %v", err)
	}
}

func (s *stage) isOver(l *Life) {
	s.t.Helper()
	if err := l.Confirm(s.t.Context()); !errors.Is(err, ErrLifeOver) {
		s.t.Fatalf("the life goes on: %v", err)
	}
	if <-s.over != l {
		s.t.Error("another life is over")
	}
}

// A backend that moves in place, and is the process that it was, has not lost anything. Where that may change without a word, everybody
// who asks has it looked at again.
func TestLifeGoesOnInTheSameProcessAfterAMoveInPlace(t *testing.T) {
	t.Parallel()
	s := newStage(t, newProcess())
	l := s.life()
	s.goesOn(l)
	for n := range uint64(3) {
		s.lives.leave(Move{N: n + 1, InPlace: true})
		s.goesOn(l)
	}
	before := s.came()
	s.goesOn(l)
	if s.came() == before {
		t.Error("the witness was believed although the backend has moved in place")
	}
	s.put(newProcess()) // nobody has told of it
	s.isOver(l)
	if s.life() == l {
		t.Error("the life goes on in another process")
	}
}

// Where another process is there, or nobody can tell, a move in place ends the life, although the witness stays open.
func TestMoveInPlaceToAnotherProcessEndsTheLife(t *testing.T) {
	t.Parallel()
	refuses := func(which string) func(string) string {
		return func(name string) string {
			return map[bool]string{true: "-NOPERM this user has no permissions\r\n"}[name == which]
		}
	}
	for name, after := range map[string]func(*stage){
		"another":               func(s *stage) { s.put(newProcess()) },
		"nobody may ask for it": func(s *stage) { p := newProcess(); p.answers = refuses("PUBSUB"); s.put(p) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, newProcess())
			l := s.life()
			after(s)
			s.lives.leave(Move{N: 1, InPlace: true})
			s.isOver(l)
		})
	}
}

// A witness that was being dialled when the backend moved is one from before: what begins with it is no life of the backend that is there
// now.
func TestWitnessFromBeforeAMoveBeginsNoLife(t *testing.T) {
	t.Parallel()
	p := newProcess()
	p.hold = make(chan struct{})
	s := newStage(t, p)
	begun := make(chan *Life)
	go func() { // ends with the life
		l, _ := s.Life(t.Context())
		begun <- l
	}()
	<-s.accepted
	s.moveInPlace(0)
	s.put(newProcess())
	close(p.hold)
	s.isOver(<-begun)
}

// A witness that is silent, while the backend answers on another connection, is replaced by that if it leads to the same process.
func TestSilentWitnessIsReplaced(t *testing.T) {
	t.Parallel()
	t.Run("by one to the same process", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, newProcess())
		l := s.life()
		s.goesOn(l)
		for range 2 {
			s.mute()
			s.goesOn(l)
		}
		if n := s.Stats().Recoveries["silent"]; n != 2 {
			t.Errorf("counted %d times", n)
		}
	})
	t.Run("not by one to another process", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, newProcess())
		l := s.life()
		s.put(newProcess())
		s.mute()
		s.isOver(l)
	})
	for name, answer := range map[string]string{"answers nobody": "", "is loading": "-LOADING Redis is loading the dataset in memory\r\n"} {
		t.Run("not while the backend "+name, func(t *testing.T) {
			t.Parallel()
			p := newProcess()
			s := newStage(t, p)
			l := s.life()
			<-s.accepted
			s.mu.Lock()
			p.answers = func(string) string { return answer }
			p.silent = answer == ""
			s.conns[0].muted = true
			s.mu.Unlock()
			ctx, cancel := context.WithCancel(t.Context())
			confirmed := make(chan error, 1)
			go func() { confirmed <- l.Confirm(ctx) }() // ends with ctx
			for range 2 {                               // another witness was looked for twice
				<-s.accepted
			}
			cancel()
			if err := <-confirmed; !errors.Is(err, context.Canceled) || l.Over() {
				t.Errorf("confirmed: %v, over: %v", err, l.Over())
			}
		})
	}
}
