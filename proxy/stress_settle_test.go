package proxy

import "fmt"

// mayHave: v was set, or will be, or will not.
func (s *stressSession) mayHave(c *stressCell, v stressValue) {
	c.may = append(c.may, v)
	if !c.unsure {
		c.unsure = true
		s.unsure = append(s.unsure, c)
	}
}

// settle reads what may have been changed, and goes on with other keys: those may change at any time.
func (s *stressSession) settle() {
	cells, counters := s.unsure, s.unsureCounters
	s.unsure, s.unsureCounters = nil, nil
	for _, old := range cells {
		for d := range 2 {
			for k, c := range s.cells[d] {
				if c == old {
					s.cells[d][k] = &stressCell{owner: s.i, db: old.db, name: old.name, gen: old.gen + 1, hash: old.hash, may: make([]stressValue, 1)}
				}
			}
			if s.big[d] == old {
				s.big[d] = &stressCell{owner: s.i, db: old.db, name: old.name, gen: old.gen + 1, may: make([]stressValue, 1)}
			}
		}
	}
	for _, old := range counters {
		for d := range 2 {
			if s.counters[d] == old {
				s.counters[d] = &stressCounter{owner: s.i, db: old.db, gen: old.gen + 1}
			}
		}
	}
	if len(cells) > 0 {
		c := s.main.connected()
		var asks []stressAsk
		for _, old := range cells {
			if old.db == s.database(c.db) {
				asks = append(asks, s.get(old))
			}
		}
		c.run("read after a loss", asks)
	}
	s.graves, s.gravesN = append(s.graves, cells...), append(s.gravesN, counters...)
	if len(s.graves)+len(s.gravesN) > 400 {
		s.bury(200)
	}
}

// bury checks n old keys that may have changed since, and removes them.
func (s *stressSession) bury(n int) {
	for range n {
		switch {
		case len(s.graves) > 0:
			c := s.graves[0]
			s.graves = s.graves[1:]
			args := []string{"GET", c.key()}
			if c.hash {
				args = []string{"HGET", c.key(), "f"}
			}
			if v := s.st.admin.in(c.db, args...); true {
				if _, ok := c.holds(v); !ok {
					s.main.fail("long after a loss: got %v, want %s", v, c.want())
				}
			}
			s.st.admin.in(c.db, "UNLINK", c.key())
		case len(s.gravesN) > 0:
			c := s.gravesN[0]
			s.gravesN = s.gravesN[1:]
			v := s.st.admin.in(c.db, "GET", c.key())
			var have int
			fmt.Sscan(string(v.text), &have)
			if have < c.low || have > c.high {
				s.main.fail("long after losses: got %v, want %s to be %d to %d", v, c.key(), c.low, c.high)
			}
			s.st.admin.in(c.db, "UNLINK", c.key())
		}
	}
}
