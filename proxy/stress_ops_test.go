package proxy

import (
	"fmt"
	"slices"
)

// stressOperations are what sessions do, and how often; the rest are pipelines. The connection is open; afterwards it
// may not be.
var stressOperations map[string]stressOperation

type stressOperation struct {
	weight int // in 1000
	do     func(*stressSession, *stressConn)
}

func init() {
	stressOperations = map[string]stressOperation{
		"whole transaction":       {100, (*stressSession).wholeTransaction},
		"transaction in pieces":   {30, (*stressSession).splitTransaction},
		"WATCH":                   {30, (*stressSession).watch},
		"DISCARD":                 {20, (*stressSession).discard},
		"change of state":         {40, (*stressSession).changeState},
		"GETNAME":                 {20, (*stressSession).getName},
		"EVAL":                    {20, (*stressSession).eval},
		"RESET":                   {15, (*stressSession).reset},
		"QUIT":                    {10, (*stressSession).quit},
		"dies in a pipeline":      {15, (*stressSession).die},
		"big value":               {10, (*stressSession).bigValue},
		"slow reader":             {4, (*stressSession).slowReader},
		"publish and subscribe":   {10, (*stressSession).subscribe},
		"BLPOP":                   {10, (*stressSession).pop},
		"dies in a blocking read": {4, (*stressSession).dieBlocked},
	}
}

// live does operations until there were enough.
func (s *stressSession) live() {
	defer s.main.close()
	defer s.mate.close()
	var names []string
	for name := range stressOperations {
		names = append(names, name)
	}
	slices.Sort(names)
	for !s.st.over() {
		c := s.main
		if s.IntN(5) == 0 {
			c = s.mate
		}
		c.connected()
		what, n := "pipeline", s.IntN(1000)
		for _, name := range names {
			if n -= stressOperations[name].weight; n < 0 {
				what = name
				break
			}
		}
		c.op = what
		s.st.kinds.add(what)
		if what == "pipeline" {
			c.run(what, s.pipeline(c, s.length()))
		} else {
			stressOperations[what].do(s, c)
		}
		s.settle()
	}
	if s.st.failed.Load() {
		return
	}
	s.bury(len(s.graves) + len(s.gravesN))
	for _, c := range []*stressConn{s.main, s.mate} {
		if c.conn != nil {
			s.quit(c)
		}
	}
}

func (s *stressSession) length() int {
	switch s.IntN(4) {
	case 0:
		return 1
	case 1:
		return 1 + s.IntN(64)
	}
	return 1 + s.IntN(12)
}

func (s *stressSession) cell(db int) *stressCell { return s.cells[db][s.IntN(len(s.cells[db]))] }

// pipeline is n quiet commands and, rarely, others.
func (s *stressSession) pipeline(c *stressConn, n int) (asks []stressAsk) {
	for len(asks) < n {
		switch s.IntN(8) {
		case 0, 1:
			asks = append(asks, s.set(s.cell(c.db), s.value(s.size())))
		case 2:
			asks = append(asks, s.incr(s.counters[c.db]))
		case 3:
			asks = append(asks, s.mget(s.some(c.db)))
		case 4:
			if s.IntN(60) == 0 {
				asks = append(asks, c.choose(s.IntN(2)))
			} else {
				asks = append(asks, s.set(s.cell(c.db), s.value(10)))
			}
		default:
			asks = append(asks, s.get(s.cell(c.db)))
		}
	}
	return asks
}

// some are cells that MGET reads.
func (s *stressSession) some(db int) (cells []*stressCell) {
	for range 2 + s.IntN(3) {
		cells = append(cells, s.cells[db][s.IntN(6)])
	}
	return cells
}

// multi sets cells, all or none, and what the replies must be.
func (s *stressSession) multi(db int) (asks []stressAsk, cells []*stressCell, v stressValue) {
	cells, v = s.cells[db][:2+s.IntN(4)], s.value(10+s.IntN(300))
	asks = append(asks, stressAsk{args: []string{"MULTI"}, want: exactly('+', "OK")})
	for _, c := range cells {
		a := s.set(c, v)
		asks = append(asks, stressAsk{args: a.args, want: exactly('+', "QUEUED")})
	}
	exec := stressAsk{args: []string{"EXEC"}, lost: func() {
		for _, c := range cells {
			s.mayHave(c, v)
		}
	}, want: func(r stressReply) string {
		if r.kind != '*' || len(r.all) != len(cells) {
			return fmt.Sprintf("%d replies", len(cells))
		}
		for i, c := range cells {
			if !r.all[i].is('+', "OK") {
				return "+OK for each"
			}
			c.now(v)
		}
		return ""
	}}
	return append(asks, exec), cells, v
}

func (s *stressSession) wholeTransaction(c *stressConn) {
	tx, cells, v := s.multi(c.db)
	db := c.db
	asks := append(append(s.reads(db), tx...), s.get(s.cell(db)))
	if c.run("whole transaction", asks) {
		if slices.ContainsFunc(cells, func(cell *stressCell) bool { return cell.unsure }) {
			s.allOrNone(c, cells, v)
		}
	}
}

func (s *stressSession) reads(db int) (asks []stressAsk) {
	for range s.IntN(3) {
		asks = append(asks, s.get(s.cell(db)))
	}
	return asks
}

// allOrNone: a transaction of which nobody knows whether it ran has run whole, or will, or will not.
func (s *stressSession) allOrNone(c *stressConn, cells []*stressCell, v stressValue) {
	a := s.mget(cells)
	each := a.want
	a.want = func(r stressReply) string {
		if w := each(r); w != "" {
			return w
		}
		n := 0
		for i := range cells {
			if r.all[i].is('$', v.of(s.i)) {
				n++
			}
		}
		if n != 0 && n != len(cells) {
			return fmt.Sprintf("%d of %d to be %v", len(cells), len(cells), v)
		}
		s.st.kinds.add("lost transaction read")
		return ""
	}
	c.run("read after a lost transaction", []stressAsk{a})
}

// sticky: without a reply to them the session cannot go on.
func sticky(asks []stressAsk) []stressAsk {
	for i := range asks {
		asks[i].state = true
	}
	return asks
}

func (s *stressSession) splitTransaction(c *stressConn) {
	tx, _, _ := s.multi(c.db)
	s.inPieces(c, sticky(tx))
}

// inPieces sends them in two writes or more, each when the one before is answered. Where it breaks nothing more is sent.
func (s *stressSession) inPieces(c *stressConn, asks []stressAsk) bool {
	for all := len(asks); len(asks) > 0; {
		n := min(1+s.IntN(len(asks)), all-1)
		if !c.run(c.op, asks[:n]) {
			return false
		}
		asks = asks[n:]
	}
	return true
}

func (s *stressSession) discard(c *stressConn) {
	tx, cells, _ := s.multi(c.db)
	tx[len(tx)-1] = ask(exactly('+', "OK"), "DISCARD")
	if s.IntN(2) == 0 {
		s.inPieces(c, append(sticky(tx), s.get(cells[0])))
		return
	}
	c.run(c.op, append(tx, s.mget(cells)))
}

// watch: the transaction runs if nobody else has changed the key.
func (s *stressSession) watch(c *stressConn) {
	tx, cells, _ := s.multi(c.db)
	watched := cells[0]
	if !c.run(c.op, []stressAsk{stateAsk(exactly('+', "OK"), "WATCH", watched.key()), stateAsk(s.get(watched).want, "GET", watched.key())}) {
		return
	}
	mate := s.main
	if c == s.main {
		mate = s.mate
	}
	changed := false
	if s.IntN(2) == 0 && mate.conn != nil && mate.db == c.db {
		a := s.set(watched, s.value(s.size()))
		right := a.want
		a.want = func(v stressReply) string {
			changed = true
			return right(v)
		}
		mate.run("change what is watched", []stressAsk{a})
		if watched.unsure {
			c.close() // nobody knows
			return
		}
	}
	if changed {
		s.st.kinds.add("changed what is watched")
		exec := &tx[len(tx)-1]
		exec.lost = nil
		exec.want = func(r stressReply) string {
			if (r.kind == '*' || r.kind == '_') && r.null {
				return ""
			}
			return "null"
		}
	}
	if s.inPieces(c, sticky(tx)) {
		c.run(c.op, []stressAsk{s.mget(cells)})
	}
}

func (s *stressSession) changeState(c *stressConn) {
	asks := []stressAsk{s.set(s.cell(c.db), s.value(s.size()))}
	for range 1 + s.IntN(3) {
		switch s.IntN(3) {
		case 0:
			asks = append(asks, c.hello(s.IntN(2) == 0))
		case 1:
			asks = append(asks, c.choose(s.IntN(2)))
		case 2:
			asks = append(asks, c.rename(), ask(exactly('$', c.name), "CLIENT", "GETNAME"))
		}
		asks = append(asks, s.get(s.cell(c.db)))
	}
	c.run(c.op, asks)
}
