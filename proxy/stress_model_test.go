package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
)

// stressReply is any reply of the backend.
type stressReply struct {
	kind byte
	text []byte
	null bool
	all  []stressReply
}

func readStressReply(r *bufio.Reader) (v stressReply, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return v, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return v, fmt.Errorf("%w: %q", errStressFrame, line)
	}
	v.kind, v.text = line[0], line[1:len(line)-2]
	switch v.kind {
	case '+', '-', ':', '_', ',', '#':
		v.null = v.kind == '_'
		return v, nil
	case '$', '*', '%', '>', '=', '~':
	default:
		return v, fmt.Errorf("%w: %q", errStressFrame, line)
	}
	n, err := strconv.Atoi(string(v.text))
	if err != nil || n < -1 || n > 64<<20 {
		return v, fmt.Errorf("%w: %q", errStressFrame, line)
	}
	v.text, v.null = nil, n == -1
	if v.null {
		return v, nil
	}
	if v.kind == '$' || v.kind == '=' {
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return v, err
		}
		if !bytes.HasSuffix(b, []byte("\r\n")) {
			return v, fmt.Errorf("%w: no end of %q", errStressFrame, short(b))
		}
		v.text = b[:n]
		return v, nil
	}
	if v.kind == '%' {
		n *= 2
	}
	for range n {
		e, err := readStressReply(r)
		if err != nil {
			return v, err
		}
		v.all = append(v.all, e)
	}
	return v, nil
}

var errStressFrame = errors.New("no RESP")

func (v stressReply) String() string {
	if v.null {
		return string(v.kind) + "null"
	}
	if v.all == nil {
		return fmt.Sprintf("%c%q", v.kind, short(v.text))
	}
	return fmt.Sprintf("%c%v", v.kind, v.all)
}

func (v stressReply) is(kind byte, text string) bool {
	return v.kind == kind && !v.null && string(v.text) == text
}

func short(b []byte) string {
	if len(b) > 60 {
		return fmt.Sprintf("%s... (%d bytes)", b[:30], len(b))
	}
	return string(b)
}

// stressValue is one of a kind: n is given once by its owner. n 0: no value.
type stressValue struct{ n, size int }

var stressNoise = sync.OnceValue(func() []byte {
	b := make([]byte, 2<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
})

func (v stressValue) of(owner int) string {
	head := fmt.Sprintf("%d:%d:", owner, v.n)
	from := v.n * 7919 % 500000
	return head + string(stressNoise()[from:from+max(0, v.size-len(head))])
}

// stressCell is a key with one value. After a command of which nobody knows whether, and when, it runs there are several
// that it may have.
type stressCell struct {
	owner  int
	db     int // one of the two of its owner
	name   string
	gen    int
	hash   bool
	may    []stressValue
	unsure bool
}

func (c *stressCell) key() string { return fmt.Sprintf("s%d:%s.%d", c.owner, c.name, c.gen) }

// now: v was certainly set.
func (c *stressCell) now(v stressValue) {
	if !c.unsure {
		c.may = c.may[:0]
	}
	c.may = append(c.may, v)
}

// holds says that this is what the cell may hold, and which value it is.
func (c *stressCell) holds(v stressReply) (stressValue, bool) {
	for _, m := range c.may {
		if m.n == 0 && v.null || m.n != 0 && v.is('$', m.of(c.owner)) {
			return m, true
		}
	}
	return stressValue{}, false
}

func (c *stressCell) exists() (no, yes bool) {
	for _, m := range c.may {
		no, yes = no || m.n == 0, yes || m.n != 0
	}
	return no, yes
}

func (c *stressCell) want() string {
	return fmt.Sprintf("%s in database %d: one of %v (value, size) of session %d", c.key(), c.db, c.may, c.owner)
}

// stressCounter is a key that only INCR changes.
type stressCounter struct {
	owner, db, gen int
	low, high      int // it is certainly not below, not above
	unsure         bool
}

func (c *stressCounter) key() string { return fmt.Sprintf("s%d:n.%d", c.owner, c.gen) }

// stressAsk is a command and what its reply has to be.
type stressAsk struct {
	args  []string
	want  func(stressReply) string // "", or what it wanted
	lost  func()                   // it may have run, or will; nil: that changes nothing
	state bool                     // without a reply to it the session cannot go on
}

func exactly(kind byte, text string) func(stressReply) string {
	return func(v stressReply) string {
		if v.is(kind, text) {
			return ""
		}
		return fmt.Sprintf("%c%q", kind, text)
	}
}

func ask(want func(stressReply) string, args ...string) stressAsk {
	return stressAsk{args: args, want: want}
}

func stateAsk(want func(stressReply) string, args ...string) stressAsk {
	return stressAsk{args: args, want: want, state: true}
}

func (s *stressSession) get(c *stressCell) stressAsk {
	want := func(v stressReply) string {
		if _, ok := c.holds(v); ok {
			return ""
		}
		return c.want()
	}
	if !c.hash {
		return ask(want, "GET", c.key())
	}
	if s.IntN(3) > 0 {
		return ask(want, "HGET", c.key(), "f")
	}
	return ask(func(v stressReply) string { // unbounded
		switch {
		case (v.kind == '*' || v.kind == '%') && len(v.all) == 0:
			return want(stressReply{null: true})
		case (v.kind == '*' || v.kind == '%') && len(v.all) == 2 && v.all[0].is('$', "f"):
			return want(v.all[1])
		}
		return c.want()
	}, "HGETALL", c.key())
}

func (s *stressSession) set(c *stressCell, v stressValue) stressAsk {
	a := stressAsk{lost: func() { s.mayHave(c, v) }}
	if c.hash {
		a.args = []string{"HSET", c.key(), "f", v.of(s.i)}
		a.want = func(r stressReply) string {
			no, yes := c.exists()
			if no && r.is(':', "1") || yes && r.is(':', "0") {
				c.now(v)
				return ""
			}
			return ":0 or :1, as " + c.want()
		}
		return a
	}
	a.args = []string{"SET", c.key(), v.of(s.i)}
	if s.IntN(100) == 0 {
		a.args = []string{"EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", c.key(), v.of(s.i)}
	}
	a.want = func(r stressReply) string {
		if !r.is('+', "OK") {
			return "+OK"
		}
		c.now(v)
		return ""
	}
	return a
}

func (s *stressSession) unlink(c *stressCell) stressAsk {
	return stressAsk{
		args: []string{"UNLINK", c.key()},
		lost: func() { s.mayHave(c, stressValue{}) },
		want: func(r stressReply) string {
			no, yes := c.exists()
			if no && r.is(':', "0") || yes && r.is(':', "1") {
				c.now(stressValue{})
				return ""
			}
			return ":0 or :1, as " + c.want()
		},
	}
}

func (s *stressSession) incr(c *stressCounter) stressAsk {
	return stressAsk{
		args: []string{"INCR", c.key()},
		lost: func() {
			c.high++
			if !c.unsure {
				c.unsure = true
				s.unsureCounters = append(s.unsureCounters, c)
			}
		},
		want: func(r stressReply) string {
			n, err := strconv.Atoi(string(r.text))
			if r.kind != ':' || err != nil || n <= c.low || n > c.high+1 {
				return fmt.Sprintf("%s to become %d to %d", c.key(), c.low+1, c.high+1)
			}
			c.low, c.high = n, c.high+1
			return ""
		},
	}
}

func (s *stressSession) mget(cells []*stressCell) stressAsk {
	args := []string{"MGET"}
	for _, c := range cells {
		args = append(args, c.key())
	}
	return ask(func(v stressReply) string {
		if v.kind != '*' || len(v.all) != len(cells) {
			return fmt.Sprintf("%d values", len(cells))
		}
		for i, c := range cells {
			if _, ok := c.holds(v.all[i]); !ok {
				return c.want()
			}
		}
		return ""
	}, args...)
}
