package proxytest

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

type flags int

const (
	whileLoading flags = 1 << iota // runs while LOADING
	denyOOM                        // refused when out of memory
	noAuth                         // allowed without authentication
	write                          // changes its keys
	read                           // reads its keys
	admin                          // not shown by MONITOR
	transaction                    // never queued
)

// command is one entry of the table. arity counts the name; negative: at least. first, last and step tell the keys,
// as COMMAND does; step 0 if there are none.
type command struct {
	name              string
	arity             int
	flags             flags
	first, last, step int
	run               func(c *conn, args [][]byte, r *reply)
}

// call is a command found, with its arguments; args[0] is the name.
type call struct {
	cmd  *command
	args [][]byte
}

func (cmd *command) keys(args [][]byte) []string {
	if cmd.step == 0 {
		return nil
	}
	last := cmd.last
	if last < 0 {
		last += len(args)
	}
	var keys []string
	for i := cmd.first; i <= last && i < len(args); i += cmd.step {
		keys = append(keys, string(args[i]))
	}
	return keys
}

// find looks a command up as Dragonfly does: the subcommands of ACL are commands whose names hold a blank.
func (d *Dragonfly) find(args [][]byte) (call, string) {
	name := upper(args[0])
	if name == "ACL" && len(args) > 1 {
		if cmd := d.commands["ACL "+upper(args[1])]; cmd != nil {
			joined := append([][]byte{[]byte(cmd.name)}, args[2:]...)
			return call{cmd, joined}, ""
		}
		return call{}, name
	}
	if cmd := d.commands[name]; cmd != nil {
		return call{cmd, args}, ""
	}
	return call{}, name
}

// upper maps ASCII letters only, and leaves other bytes alone.
func upper(b []byte) string {
	out := bytes.Clone(b)
	for i, x := range out {
		if 'a' <= x && x <= 'z' {
			out[i] = x - 32
		}
	}
	return string(out)
}

func wrongArity(name string) string {
	return "ERR wrong number of arguments for '" + strings.ToLower(name) + "' command"
}

// run executes one command and adds its reply; false: the connection ends here.
func (c *conn) run(args [][]byte) bool {
	d := c.d
	d.mu.Lock()
	d.keep(c, args)
	d.notify()
	hook := d.onCommand
	d.mu.Unlock()
	if hook != nil {
		if raw, override := hook(c.id, args); override {
			c.append(raw, true)
			return !c.isDead()
		}
	}

	r := &reply{c: c}
	d.waitPause(c)
	d.mu.Lock()
	c.count++
	c.dispatch(args, r)
	r.b = append(r.b, c.after...)
	c.after = nil
	d.serveWaiters()
	closing, dropped := c.closing, c.dropped
	c.append(r.b, false)
	d.mu.Unlock()

	if dropped {
		c.drop()
		return false
	}
	if closing {
		return false
	}
	return c.relieve()
}

// relieve lets replies go early when there are many, as a pipeline of any depth must not need memory for all.
func (c *conn) relieve() bool {
	c.outMu.Lock()
	many := len(c.out) > 16<<10 && c.d.opt.HalfCloseWindow == 0
	c.outMu.Unlock()
	if many {
		return c.flush()
	}
	return !c.isDead()
}

func (c *conn) dispatch(args [][]byte, r *reply) {
	found, unknown := c.d.find(args)
	if found.cmd == nil {
		r.fail("ERR unknown command `" + unknown + "`")
		return // an unknown name does not spoil a MULTI
	}
	if text := c.refusal(found); text != "" {
		if c.tx == txCollect {
			c.tx = txError
			if found.cmd.name == "EXEC" {
				text = "EXECABORT Transaction discarded because of: " + strings.TrimPrefix(text, "ERR ")
			}
		}
		r.fail(text)
		return
	}
	if c.tx == txCollect && (found.cmd.flags&transaction == 0 || found.cmd.name == "QUIT" && c.d.opt.Release == August2026) {
		c.queue = append(c.queue, found)
		r.simple("QUEUED")
		return
	}
	c.perform(found, r)
}

// refusal is Dragonfly's VerifyCommandState, in its order.
func (c *conn) refusal(f call) string {
	d, cmd, n := c.d, f.cmd, len(f.args)
	switch {
	case cmd.arity > 0 && n != cmd.arity, n < -cmd.arity:
		return wrongArity(cmd.name)
	case d.loading && cmd.flags&whileLoading == 0:
		return "LOADING Dragonfly is loading the dataset in memory"
	case !c.authed && cmd.flags&noAuth == 0:
		return "NOAUTH Authentication required."
	case c.monitor && cmd.name != "RESET" && cmd.name != "QUIT":
		return "ERR Replica can't interact with the keyspace"
	case c.tx == txCollect && (cmd.name == "WATCH" || strings.HasSuffix(cmd.name, "SUBSCRIBE")):
		return "ERR '" + cmd.name + "' not allowed inside a transaction"
	case c.authed && !d.allowed(c.user, f):
		return "NOPERM " + c.user + " has no ACL permissions"
	}
	return ""
}

// perform runs a command that may run, with what surrounds every command: memory, MONITOR, tracking.
func (c *conn) perform(f call, r *reply) {
	d := c.d
	if d.oom && f.cmd.flags&denyOOM != 0 {
		r.fail("ERR Out of memory")
		return
	}
	if f.cmd.flags&admin == 0 {
		d.monitorLine(c, f.args)
	}
	d.expire(c.db, f.cmd.keys(f.args))
	if f.cmd.flags&read != 0 {
		c.track(f.cmd.keys(f.args))
	}
	if f.cmd.name != "CLIENT" {
		c.caching = false
	}
	f.cmd.run(c, f.args, r)
}

// waitPause holds commands back during CLIENT PAUSE.
func (d *Dragonfly) waitPause(c *conn) {
	for {
		d.mu.Lock()
		wait := time.Until(d.paused)
		d.mu.Unlock()
		if wait <= 0 {
			return
		}
		t := time.NewTimer(min(wait, 10*time.Millisecond)) // CLIENT UNPAUSE may end it early
		select {
		case <-t.C:
		case <-c.dead:
			t.Stop()
			return
		}
	}
}
