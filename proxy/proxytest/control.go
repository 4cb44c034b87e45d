package proxytest

import "time"

// KillAll closes every connection at once, without a word.
func (d *Dragonfly) KillAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.kill()
	}
}

// Kill closes one connection at once; ResetConn does it with RST.
func (d *Dragonfly) Kill(conn int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.conns[conn]; c != nil {
		c.kill()
	}
}

// ResetConn closes one connection with RST, where its socket knows that.
func (d *Dragonfly) ResetConn(conn int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.conns[conn]; c != nil {
		linger0(c.raw)
		c.kill()
	}
}

// Send writes raw bytes on a connection, after the replies that are complete.
func (d *Dragonfly) Send(conn int, raw []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.conns[conn]; c != nil {
		c.append(raw, true)
	}
}

// Stall stops reading and answering on every connection, as SIGSTOP does; the kernel still accepts.
// A read that waits may take one more piece of up to 64 KiB.
func (d *Dragonfly) Stall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled == nil {
		d.stalled = make(chan struct{})
	}
}

// Release ends Stall.
func (d *Dragonfly) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled != nil {
		close(d.stalled)
		d.stalled = nil
	}
}

// SetLoading turns LOADING replies on and off.
func (d *Dragonfly) SetLoading(on bool) { d.locked(func() { d.loading = on }) }

// SetOOM turns Out of memory replies on and off.
func (d *Dragonfly) SetOOM(on bool) { d.locked(func() { d.oom = on }) }

// SetOnCommand replaces Options.OnCommand for commands to come.
func (d *Dragonfly) SetOnCommand(f func(conn int, args [][]byte) (reply []byte, override bool)) {
	d.locked(func() { d.onCommand = f })
}

func (d *Dragonfly) locked(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	d.notify()
}

// Conns is the number of open connections; Accepted counts those that ever were.
func (d *Dragonfly) Conns() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

// Accepted counts the connections ever accepted.
func (d *Dragonfly) Accepted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepted
}

// ConnIDs lists the ids of the open connections, in no order.
func (d *Dragonfly) ConnIDs() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]int, 0, len(d.conns))
	for id := range d.conns {
		ids = append(ids, id)
	}
	return ids
}

// Blocked is the number of connections that wait in a blocking command.
func (d *Dragonfly) Blocked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiters)
}

// Commands returns what arrived, in order of arrival, at most Options.LogLimit of it;
// an argument is cut at 64 KiB.
func (d *Dragonfly) Commands() []Command {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Command(nil), d.log...)
}

// ClearLog empties what Commands returns.
func (d *Dragonfly) ClearLog() { d.locked(func() { d.log, d.logBytes = nil, 0 }) }

// keep logs a command; the caller holds mu.
func (d *Dragonfly) keep(c *conn, args [][]byte) {
	if len(d.log) >= d.opt.LogLimit || d.logBytes >= maxLogBytes {
		return
	}
	kept := make([][]byte, len(args))
	for i, a := range args {
		kept[i] = a
		if len(a) > maxLogArg {
			kept[i] = append([]byte(nil), a[:maxLogArg]...)
		}
		d.logBytes += len(kept[i])
	}
	d.log = append(d.log, Command{c.id, kept})
}

// RawBytes returns the first Options.RawLimit bytes that arrived on a connection.
func (d *Dragonfly) RawBytes(conn int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.raw[conn]...)
}

// Wait returns true as soon as cond holds, which is looked at after every event; false after timeout.
// cond may call the methods of d.
func (d *Dragonfly) Wait(timeout time.Duration, cond func() bool) bool {
	end := time.Now().Add(timeout)
	timer := time.AfterFunc(timeout, func() { d.locked(func() {}) })
	defer timer.Stop()
	for {
		d.mu.Lock()
		n := d.events
		d.mu.Unlock()
		if cond() {
			return true
		}
		d.mu.Lock()
		for d.events == n && time.Now().Before(end) && !d.closed {
			d.changed.Wait()
		}
		over := !time.Now().Before(end) || d.closed
		d.mu.Unlock()
		if over {
			return cond()
		}
	}
}

// String reports the key's string value in database db, for assertions behind the wire.
func (d *Dragonfly) String(db int, key string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.dbs[db][key]
	if v == nil || v.kind != kindString {
		return "", false
	}
	return string(v.str), true
}
