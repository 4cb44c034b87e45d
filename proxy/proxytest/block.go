package proxytest

import (
	"math"
	"strconv"
	"time"
)

// waiter is one connection that waits in BLPOP or BRPOP.
type waiter struct {
	c        *conn
	db       int
	keys     []string
	front    bool
	woken    chan struct{} // closed when it is served or lost
	lost     bool
	served   bool
	key, got string
}

func blockingPop(front bool) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		keys, wait := args[1:len(args)-1], args[len(args)-1]
		seconds, err := strconv.ParseFloat(string(wait), 64)
		switch {
		case err != nil || math.IsNaN(seconds) || math.IsInf(seconds, 0):
			r.fail("ERR timeout is not a float or out of range")
			return
		case seconds < 0:
			r.fail("ERR timeout is negative")
			return
		}
		d := c.d
		w := &waiter{c: c, db: c.db, front: front, woken: make(chan struct{})}
		for _, k := range keys {
			w.keys = append(w.keys, string(k))
			if v := d.dbs[c.db][string(k)]; v != nil && v.kind != kindList {
				r.fail(wrongType)
				return
			}
		}
		switch {
		case d.tryServe(w):
			w.answer(r)
			return
		case c.inExec:
			r.nullArray()
			return
		case c.eof:
			c.dropped = true // the client went away: no reply, and nothing after it runs
			return
		}
		d.waiters = append(d.waiters, w)
		d.notify()
		d.mu.Unlock()
		c.flush()
		woken := w.wait(time.Duration(seconds * float64(time.Second)))
		d.mu.Lock()
		d.forgetLocked(w)
		switch {
		case w.served:
			w.answer(r)
		case w.lost || !woken && c.isDead():
			c.dropped = true
		default:
			r.nullArray() // in RESP3 too
		}
	}
}

// wait is called without the lock; false: time-out or dead.
func (w *waiter) wait(limit time.Duration) bool {
	var after <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-w.woken:
		return true
	case <-after:
	case <-w.c.dead:
	}
	return false
}

func (w *waiter) answer(r *reply) {
	r.array(2)
	r.bulk(w.key)
	r.bulk(w.got)
}

// tryServe pops from the first of the keys that has something.
func (d *Dragonfly) tryServe(w *waiter) bool {
	for _, k := range w.keys {
		v := d.dbs[w.db][k]
		if v == nil || v.kind != kindList || len(v.list) == 0 {
			continue
		}
		w.key, w.got, w.served = k, v.pop(w.front), true
		d.dropEmpty(w.db, k)
		d.touch(w.c, w.db, k)
		return true
	}
	return false
}

// serveWaiters runs after every command, in the order in which they came to wait.
func (d *Dragonfly) serveWaiters() {
	rest := d.waiters[:0]
	for _, w := range d.waiters {
		if !w.c.isDead() && d.tryServe(w) {
			close(w.woken)
			continue
		}
		rest = append(rest, w)
	}
	clear(d.waiters[len(rest):])
	d.waiters = rest
}

func (d *Dragonfly) forgetLocked(w *waiter) {
	for i, o := range d.waiters {
		if o == w {
			d.waiters = append(d.waiters[:i:i], d.waiters[i+1:]...)
			break
		}
	}
	d.notify()
}

// forgetWaiter is called when c's client is gone, so that no element is popped for it.
func (d *Dragonfly) forgetWaiter(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.eof = true
	for _, w := range d.waiters {
		if w.c == c {
			w.lost = true
			d.forgetLocked(w)
			close(w.woken)
			return
		}
	}
}
