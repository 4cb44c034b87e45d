package proxy

import (
	"fmt"
	"strings"
	"time"
)

func (s *stressSession) getName(c *stressConn) {
	c.run(c.op, []stressAsk{s.get(s.cell(c.db)), ask(exactly('$', c.name), "CLIENT", "GETNAME"), s.get(s.cell(c.db))})
}

func (s *stressSession) eval(c *stressConn) {
	cell, n := s.cells[c.db][0], s.value(0).n
	c.run(c.op, []stressAsk{
		s.set(cell, s.value(s.size())),
		ask(s.get(cell).want, "EVAL", "return redis.call('GET', KEYS[1])", "1", cell.key()),
		ask(exactly(':', fmt.Sprint(n)), "EVAL", "return tonumber(ARGV[1])", "0", fmt.Sprint(n)),
	})
}

func (s *stressSession) reset(c *stressConn) {
	asks := []stressAsk{s.set(s.cell(c.db), s.value(s.size())), stateAsk(exactly('+', "RESET"), "RESET")}
	c.run(c.op, append(asks, c.afterReset()...))
}

func (c *stressConn) afterReset() []stressAsk {
	unnamed := func(v stressReply) string {
		if v.null {
			return ""
		}
		return "no name"
	}
	return append([]stressAsk{ask(unnamed, "CLIENT", "GETNAME")}, c.introduction()...)
}

// quit ends it in order: behind the last reply there is nothing but the end.
func (s *stressSession) quit(c *stressConn) {
	asks := append(s.pipeline(c, s.IntN(5)), stateAsk(exactly('+', "OK"), "QUIT"))
	if c.run("QUIT", asks) {
		c.conn.SetReadDeadline(time.Now().Add(90 * time.Second))
		if v, err := readStressReply(c.r); err == nil {
			c.fail("%v behind the reply to QUIT", v)
		}
		c.close()
	}
}

// die: nobody reads the replies, and the last command may be cut.
func (s *stressSession) die(c *stressConn) {
	asks := s.pipeline(c, 1+s.IntN(64))
	b := encodeAsks(asks)
	s.st.commands.Add(int64(len(asks)))
	b = b[:1+s.IntN(len(b))]
	select {
	case <-c.send(b):
	case <-time.After(time.Duration(s.IntN(20)) * time.Millisecond): // in the middle of a write
	}
	if s.IntN(2) == 0 {
		time.Sleep(time.Duration(s.IntN(2000)) * time.Microsecond)
	}
	c.forget(asks)
	c.abort()
}

func (s *stressSession) bigValue(c *stressConn) {
	cell, v := s.big[c.db], s.value(100000+s.IntN(1400000))
	ok := c.run(c.op, []stressAsk{
		s.get(s.cell(c.db)), s.set(cell, v), s.get(s.cell(c.db)), s.get(cell), s.incr(s.counters[c.db]), s.unlink(cell),
	})
	if ok && v.size > maxLaneReply/2 {
		s.quit(c) // it would ride no lane for long
	}
}

func (s *stressSession) slowReader(c *stressConn) {
	cell := s.big[c.db]
	if !c.run(c.op, []stressAsk{s.set(cell, s.value(500000+s.IntN(1000000)))}) {
		return
	}
	asks := []stressAsk{s.get(s.cell(c.db))}
	for range 3 + s.IntN(4) {
		asks = append(asks, s.get(cell), s.get(s.cell(c.db)))
	}
	c.pauses = time.Duration(s.IntN(150)) * time.Millisecond
	ok := c.run(c.op, append(asks, s.incr(s.counters[c.db])))
	c.pauses = 0
	if ok && c.run(c.op, []stressAsk{s.unlink(cell)}) {
		s.quit(c)
	}
}

// message is a reply of three parts, the last a number or a bulk.
func (c *stressConn) message(kind, channel, third string) func(stressReply) string {
	resp3 := c.resp3
	return func(v stressReply) string {
		if len(v.all) == 3 && (v.kind == '>') == resp3 && v.all[0].is('$', kind) && v.all[1].is('$', channel) && string(v.all[2].text) == third {
			return ""
		}
		return fmt.Sprintf("%s, %s, %s", kind, channel, third)
	}
}

// subscribe: the mate publishes what main has subscribed to.
func (s *stressSession) subscribe(*stressConn) {
	c, mate := s.main.connected(), s.mate.connected()
	channel := fmt.Sprintf("s%d:c%d", s.i, s.value(0).n)
	if !c.run("SUBSCRIBE", []stressAsk{s.get(s.cell(c.db)), stateAsk(c.message("subscribe", channel, "1"), "SUBSCRIBE", channel)}) {
		return
	}
	var publish []stressAsk
	var want []stressAsk
	certain := 0
	for range 1 + s.IntN(20) {
		text := s.value(s.size()).of(s.i)
		a := ask(func(v stressReply) string {
			if v.is(':', "1") {
				certain++
				return ""
			}
			if s.st.storming.Load() && v.is(':', "0") {
				return ""
			}
			return ":1"
		}, "PUBLISH", channel, text)
		publish = append(publish, a)
		want = append(want, stressAsk{args: []string{"a message"}, want: c.message("message", channel, text)})
	}
	if mate.run("PUBLISH", publish); certain < len(publish) {
		c.close() // which of them come is not known
		return
	}
	c.op = "messages"
	if !c.replies(want) {
		c.close()
		return
	}
	s.st.kinds.add("messages read")
	var asks []stressAsk
	if c.resp3 {
		asks = append(asks, s.get(s.cell(c.db)))
	}
	if s.IntN(2) == 0 {
		asks = append(asks, stateAsk(c.message("unsubscribe", channel, "0"), "UNSUBSCRIBE", channel), s.get(s.cell(c.db)))
	}
	if c.run("UNSUBSCRIBE", asks) && (s.IntN(4) > 0 || len(asks) < 2) {
		if c.run("RESET", append([]stressAsk{stateAsk(exactly('+', "RESET"), "RESET")}, c.afterReset()...)) && s.IntN(4) > 0 {
			s.quit(c) // it rides lanes no more
		}
	}
}

func (s *stressSession) list() string { return fmt.Sprintf("s%d:l%d", s.i, s.value(0).n) }

// pop: the mate pushes what main waits for.
func (s *stressSession) pop(*stressConn) {
	c, mate := s.main.connected(), s.mate.connected()
	if !c.run("SELECT", []stressAsk{c.choose(0)}) || !mate.run("SELECT", []stressAsk{mate.choose(0)}) {
		return
	}
	list, element := s.list(), s.value(s.size()).of(s.i)
	c.op = "BLPOP"
	asks := []stressAsk{s.get(s.cell(0)), ask(func(v stressReply) string {
		if v.kind == '*' && len(v.all) == 2 && v.all[0].is('$', list) && v.all[1].is('$', element) {
			return ""
		}
		return fmt.Sprintf("%s, %q", list, short([]byte(element)))
	}, "BLPOP", list, "0"), s.get(s.cell(0))}
	<-c.send(encodeAsks(asks))
	if s.IntN(2) == 0 {
		time.Sleep(time.Duration(s.IntN(3000)) * time.Microsecond)
	}
	pushed := false
	for tries := 0; !pushed; tries++ {
		s.st.giveUp()
		if tries == 200 {
			mate.fail("cannot push")
		}
		a := ask(func(v stressReply) string {
			if pushed = v.kind == ':'; pushed {
				return ""
			}
			return "a number"
		}, "RPUSH", list, element)
		mate.connected().run("RPUSH", []stressAsk{a, s.get(s.cell(mate.db))})
	}
	if !c.replies(asks) {
		c.close()
	}
	s.st.admin.in(s.database(0), "UNLINK", list)
}

// dieBlocked: when the client is gone, nothing takes the elements that are pushed.
func (s *stressSession) dieBlocked(c *stressConn) {
	list := s.list()
	db := s.database(c.db)
	<-c.send([]byte(cmd([]string{"BLPOP", "BRPOP"}[s.IntN(2)], list, "0")))
	s.st.commands.Add(1)
	for c.backendState() != "b" {
		if c.hasMore() { // it was lost
			if !s.st.storming.Load() {
				c.fail("the session has an answer")
			}
			c.close()
			return
		}
		s.st.giveUp()
	}
	name := c.name
	c.abort()
	for began := time.Now(); c.backendState() != ""; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			c.fail("the backend connection %s of a client that is gone stays", name)
		}
	}
	s.st.kinds.add("died while blocked")
	mate := s.mate.connected()
	var want []string
	for range 1 + s.IntN(5) {
		want = append(want, s.value(s.size()).of(s.i))
	}
	if v := s.st.admin.in(db, append([]string{"RPUSH", list}, want...)...); !v.is(':', fmt.Sprint(len(want))) {
		mate.fail("pushed %d elements behind a client that is gone: %v", len(want), v)
	}
	if s.database(mate.db) == db {
		mate.run("LRANGE", []stressAsk{ask(func(v stressReply) string {
			if v.kind != '*' || len(v.all) != len(want) {
				return fmt.Sprintf("%d elements", len(want))
			}
			for i, e := range want {
				if !v.all[i].is('$', e) {
					return fmt.Sprintf("%d: %q", i, short([]byte(e)))
				}
			}
			return ""
		}, "LRANGE", list, "0", "-1")})
	}
	if v := s.st.admin.in(db, "LLEN", list); !v.is(':', fmt.Sprint(len(want))) {
		mate.fail("%d elements were pushed behind a client that is gone, and now there are %v", len(want), v)
	}
	s.st.admin.in(db, "UNLINK", list)
}

// backendState is "" without a backend connection of the name, "b" where it is blocked.
func (c *stressConn) backendState() string {
	for _, of := range c.s.st.admin.clients() {
		if of["name"] == c.name {
			if strings.Contains(of["flags"], "b") { // a U beside it: it came by a Unix socket
				return "b"
			}
			return "there"
		}
	}
	return ""
}
