package proxytest

func (c *conn) endTx() {
	c.tx = txNone
	c.queue = nil
	c.unwatch()
}

func (c *conn) unwatch() {
	c.watching = map[dbKey]bool{}
	c.dirty = false
}

func cmdMulti(c *conn, _ [][]byte, r *reply) {
	if c.tx == txCollect {
		r.fail("ERR MULTI calls can not be nested")
		return
	}
	c.tx = txCollect // in the error state the queue from before the error is still there
	r.ok()
}

func cmdExec(c *conn, _ [][]byte, r *reply) {
	switch {
	case c.tx == txNone:
		r.fail("ERR EXEC without MULTI")
		return
	case c.tx == txError:
		c.endTx()
		r.fail("EXECABORT Transaction discarded because of previous errors")
		return
	case c.dirty:
		c.endTx()
		if r.resp3() || c.d.opt.Release == V1_40 {
			r.null()
		} else {
			r.nullArray()
		}
		return
	}
	queue := c.queue
	c.endTx()
	c.inExec = true
	r.array(len(queue))
	for _, f := range queue {
		if !c.d.allowed(c.user, f) {
			r.fail("NOPERM " + c.user + " has no ACL permissions")
			continue
		}
		c.perform(f, r)
	}
	c.inExec = false
}

func cmdDiscard(c *conn, _ [][]byte, r *reply) {
	state := c.tx
	if state == txNone {
		r.fail("ERR DISCARD without MULTI")
		return
	}
	c.endTx()
	if state == txError {
		r.fail("ERR DISCARD without MULTI")
		return
	}
	r.ok()
}

func cmdWatch(c *conn, args [][]byte, r *reply) {
	for _, k := range args[1:] {
		c.watching[dbKey{c.db, string(k)}] = true
	}
	r.ok()
}

func cmdUnwatch(c *conn, _ [][]byte, r *reply) {
	c.unwatch() // leaves the error state of a MULTI alone
	r.ok()
}

// touch tells watchers and trackers that c changed a key.
func (d *Dragonfly) touch(c *conn, db int, key string) {
	k := dbKey{db, key}
	for _, o := range d.conns {
		if o.watching[k] {
			o.dirty = true
		}
		if o.tracked[k] {
			delete(o.tracked, k)
			if o != c || !o.noLoop {
				o.invalidate(c, key)
			}
		}
	}
}

// flushed tells them that everything is gone.
func (d *Dragonfly) flushed(c *conn) {
	for _, o := range d.conns {
		if len(o.watching) > 0 {
			o.dirty = true
		}
		if o.tracking != trackOff {
			o.tracked = map[dbKey]bool{}
			o.notify(c, []byte(">2\r\n$10\r\ninvalidate\r\n_\r\n"))
		}
	}
}
