package proxytest

import "sync"

// end closes the socket after what is still to be written.
func (c *conn) end() {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	c.ready = len(c.out)
	c.ending = true
	c.outCond.Broadcast()
}

// append adds complete frames; with flush they, and all before them, may be written at once.
func (c *conn) append(b []byte, flush bool) {
	c.outMu.Lock()
	full := len(c.out) > maxPushed
	if !c.ending && !full {
		c.out = append(c.out, b...)
		if flush {
			c.ready = len(c.out)
			c.outCond.Broadcast()
		}
	}
	c.outMu.Unlock()
	if full {
		c.kill()
	}
}

// flush waits while the client does not take its replies; false: the connection is dead.
func (c *conn) flush() bool {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	c.ready = len(c.out)
	c.outCond.Broadcast()
	for len(c.out) > maxUnwritten && !c.ending {
		c.outCond.Wait()
	}
	return !c.ending
}

// unsent reports whether there are replies that were not let go.
func (c *conn) unsent() bool {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return len(c.out) > c.ready
}

// drop forgets the replies that were not let go.
func (c *conn) drop() {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	c.out = c.out[:c.ready]
}

func (c *conn) write(wg *sync.WaitGroup) {
	defer wg.Done()
	defer c.kill() // wakes read
	for {
		c.outMu.Lock()
		for c.ready == 0 && !c.ending {
			c.outCond.Wait()
		}
		b := c.out[:c.ready:c.ready]
		c.out = append([]byte(nil), c.out[c.ready:]...)
		c.ready = 0
		ending := c.ending && len(c.out) == 0
		c.outCond.Broadcast()
		c.outMu.Unlock()
		if len(b) > 0 {
			if !c.gate() {
				return
			}
			if _, err := c.nc.Write(b); err != nil {
				return
			}
		}
		if ending {
			if !c.isDead() {
				_ = c.nc.Close()
			}
			return
		}
	}
}
