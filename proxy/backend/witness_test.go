package backend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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
	first       chan struct{}            // its first connection gets an answer then, before the others; nil: in no order
}

// staged is a connection to the process that was on the stage when it came.
type staged struct {
	net.Conn
	to    *process
	muted bool
	hold  chan struct{} // it answers a PUBSUB only when this is closed; nil: at once
	asked chan struct{} // gets one for each PUBSUB that has to wait
	gone  chan struct{} // closed when it has ended and its subscriptions have too
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
			at := &staged{Conn: c, to: s.on, asked: make(chan struct{}, 1), gone: make(chan struct{})}
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
	subscribed := map[string]bool{}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for channel := range subscribed {
			c.to.subscribers[channel]--
		}
		close(c.gone)
	}()
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
		s.mu.Lock()
		hold, first, isFirst := c.to.hold, c.to.first, c == s.conns[0]
		if c.hold != nil && args[0] == "PUBSUB" {
			hold = c.hold
			c.asked <- struct{}{}
		}
		s.mu.Unlock()
		if hold != nil {
			<-hold
		}
		if first != nil && !isFirst {
			<-first
		}
		s.mu.Lock()
		reply := "+PONG\r\n"
		switch {
		case c.to.answers != nil && c.to.answers(args[0]) != "":
			reply = c.to.answers(args[0])
		case args[0] == "SUBSCRIBE":
			subscribed[args[1]] = true
			c.to.subscribers[args[1]]++
			reply = fmt.Sprintf("*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:%d\r\n", len(args[1]), args[1], len(subscribed))
		case args[0] == "UNSUBSCRIBE":
			delete(subscribed, args[1])
			c.to.subscribers[args[1]]--
			reply = fmt.Sprintf("*3\r\n$11\r\nunsubscribe\r\n$%d\r\n%s\r\n:%d\r\n", len(args[1]), args[1], len(subscribed))
		case args[0] == "PUBSUB":
			reply = fmt.Sprintf("*2\r\n$%d\r\n%s\r\n:%d\r\n", len(args[2]), args[2], c.to.subscribers[args[2]])
		case len(subscribed) > 0:
			reply = "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
		}
		muted := c.muted || c.to.silent
		s.mu.Unlock()
		if !muted {
			io.WriteString(c, reply)
		}
		if first != nil && isFirst {
			s.mu.Lock()
			if c.to.first != nil {
				close(first)
				c.to.first = nil
			}
			s.mu.Unlock()
		}
	}
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

func (s *stage) life() *Life {
	s.t.Helper()
	l, err := s.Life(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// confirm dials a connection and asks whether it leads to the process of the life.
func (s *stage) confirm(ctx context.Context, l *Life) error {
	s.t.Helper()
	c, err := s.Dial(s.t.Context(), Login{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Drop()
	return l.Confirm(ctx, c)
}

// goesOn wants the life to be confirmed, and nobody to be told that one is over.
func (s *stage) goesOn(l *Life) {
	s.t.Helper()
	if err := s.confirm(s.t.Context(), l); err != nil || l.Over() || len(s.over) > 0 {
		s.t.Fatalf("the life is over: %v", err)
	}
}

func (s *stage) isOver(l *Life) {
	s.t.Helper()
	if err := s.confirm(s.t.Context(), l); !errors.Is(err, ErrLifeOver) {
		s.t.Fatalf("the life goes on: %v", err)
	}
	if <-s.over != l {
		s.t.Error("another life is over")
	}
}

// foresee has other clients subscribe to every channel that from knows.
func (p *process) foresee(from *process) {
	for channel, n := range from.subscribers {
		p.subscribers[channel] += n
	}
}

// Anybody may find the channels of the witness and subscribe to them: in the same process that ends no life, and in another one it keeps
// none.
func TestOtherSubscribersTellNothing(t *testing.T) {
	t.Parallel()
	first, second := newProcess(), newProcess()
	s := newStage(t, first)
	l := s.life()
	s.mu.Lock()
	first.foresee(first)
	second.foresee(first)
	s.mu.Unlock()
	s.lives.leave(Move{N: 1, InPlace: true})
	s.goesOn(l)
	s.mute()
	s.goesOn(l)
	s.mu.Lock()
	second.foresee(first)
	s.mu.Unlock()
	s.put(second)
	s.isOver(l)
}

// A backend that moves in place, and is the process that it was, has not lost anything. When another process takes its place without a
// word, the first connection to that ends the life.
func TestLifeGoesOnInTheSameProcessAfterAMoveInPlace(t *testing.T) {
	t.Parallel()
	s := newStage(t, newProcess())
	l := s.life()
	s.goesOn(l)
	for n := range uint64(3) {
		s.lives.leave(Move{N: n + 1, InPlace: true})
		s.goesOn(l)
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
			if <-s.over != l {
				t.Error("another life is over")
			}
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
	if over := <-s.over; over != <-begun {
		t.Error("another life is over")
	}
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
			go func() { confirmed <- s.confirm(ctx, l) }() // ends with ctx
			for range 3 {                                  // its own, and another witness was looked for twice
				<-s.accepted
			}
			cancel()
			if err := <-confirmed; !errors.Is(err, context.Canceled) || l.Over() {
				t.Errorf("confirmed: %v, over: %v", err, l.Over())
			}
		})
	}
}

// A backend that stands still, and then goes on, answers the witness before it answers on another connection: the witness stays, whatever
// its user may do.
func TestBackendThatStoodStillKeepsItsWitness(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string][]string{"recognisable": nil, "unrecognisable": {"SUBSCRIBE"}, "no commands": {"SUBSCRIBE", "PUBSUB", "UNSUBSCRIBE"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProcess()
			p.answers = func(name string) string {
				return map[bool]string{true: "-NOPERM this user has no permissions\r\n"}[slices.Contains(refused, name)]
			}
			s := newStage(t, p)
			l := s.life()
			hold, first := make(chan struct{}), make(chan struct{})
			s.mu.Lock()
			p.hold, p.first = hold, first
			s.mu.Unlock()
			confirmed := make(chan error, 1)
			go func() { confirmed <- s.confirm(t.Context(), l) }() // ends with the answer
			for range 3 {                                          // the witness, the connection above, and another witness
				<-s.accepted
			}
			close(hold)
			if err := <-confirmed; err != nil {
				t.Error(err)
			}
			s.goesOn(l)
			if n := s.Stats().Recoveries["silent"]; n != 0 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// A user who may not ask is not taken for a sign of another process, and nor is a backend that can do nothing now.
func TestConfirmNeedsAnAnswer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		asked, reply string
		want         error
	}{
		"the witness may not subscribe": {"SUBSCRIBE", "-NOPERM this user has no permissions\r\n", nil},
		"the connection may not ask":    {"PUBSUB", "-NOAUTH Authentication required.\r\n", nil},
		"a script runs":                 {"PUBSUB", "-BUSY Redis is busy running a script.\r\n", ErrScript},
		"a script has begun":            {"SUBSCRIBE", "-BUSY Redis is busy running a script.\r\n", ErrScript},
		"it is loading":                 {"PUBSUB", "-LOADING Redis is loading the dataset in memory\r\n", ErrBusy},
		"nonsense":                      {"PUBSUB", "+PONG\r\n", ErrUnasked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProcess()
			s := newStage(t, p)
			l := s.life()
			answer := ""
			s.mu.Lock()
			p.answers = func(name string) string { return map[bool]string{true: answer}[name == tt.asked] }
			answer = tt.reply
			s.mu.Unlock()
			if err := s.confirm(t.Context(), l); !errors.Is(err, tt.want) || l.Over() {
				t.Errorf("got %v, over: %v", err, l.Over())
			}
			s.mu.Lock()
			answer = ""
			s.mu.Unlock()
			s.goesOn(l)
		})
	}
}

// While a connection is asked about the witness, another one may take the place of that: what the backend then says of the last one
// tells nothing.
func TestConfirmAsksAgainWhenTheWitnessIsReplaced(t *testing.T) {
	t.Parallel()
	s := newStage(t, newProcess())
	l := s.life()
	<-s.accepted
	c, err := s.Dial(t.Context(), Login{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	<-s.accepted
	s.mu.Lock()
	witness, at, hold := s.conns[0], s.conns[1], make(chan struct{})
	at.hold = hold
	s.mu.Unlock()
	confirmed := make(chan error, 1)
	go func() { confirmed <- l.Confirm(t.Context(), c) }() // ends with the answer
	<-at.asked
	s.mu.Lock()
	witness.muted, at.hold = true, nil
	s.mu.Unlock()
	s.goesOn(l)
	<-witness.gone
	close(hold)
	if err := <-confirmed; err != nil || l.Over() {
		t.Errorf("got %v, over: %v", err, l.Over())
	}
}
