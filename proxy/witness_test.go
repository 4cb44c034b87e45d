package proxy

import (
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// A backend that is a replica now has the scripts that it had: the sessions whose clients believe in them go on, however often it says so.
// When its address leads to another process, they end before anything of a transaction runs there, even if nobody has told of that.
func TestReplicaEndsNobodyWhoBelievesInScripts(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		a := newStableAddress(t, "")
		h := m.start(t, a.Addr(), func(c *Config) { c.Backend.Credentials = credentials("", "") })
		w, writer := h.dial(), h.dial()
		w.do(":1\r\n", "EVAL", script, "0")
		writer.do("+OK\r\n", "SET", "k", "v")
		a.at(a.first, "+OK\r\n", "REPLICAOF", "127.0.0.1", "1")
		for n := range uint64(3) {
			writer.do(sayReadonly, "SET", "k", "v")
			if m.shared {
				eventually(t, "the backend moves", func() bool { return h.moves() == n+1 })
				h.closeUnused(h.sessionOf(w))
			}
			w.do(":1\r\n", "EVALSHA", scriptSum, "0")
			h.pass(time.Minute)
		}
		a.Retarget("unix:" + a.second)
		if m.shared {
			h.closeUnused(h.sessionOf(w))
			w.send(cmd("MULTI") + cmd("SET", "paid", "1") + cmd("EVALSHA", scriptSum, "0") + cmd("EXEC"))
			w.endsUnanswered()
			a.at(a.second, "$-1\r\n", "GET", "paid")
			h.wantClosed(closeScripts, 1)
			return
		}
		w.do(":1\r\n", "EVALSHA", scriptSum, "0")
	})
}

// Behind a middlebox that swallows what open connections carry, the witness is silent too. Whoever believes in scripts gets a new
// connection all the same, since the backend is the process that it was; or the session ends.
func TestSilentWitnessStopsNobody(t *testing.T) {
	t.Parallel()
	for name, same := range map[string]bool{"the same process": true, "another process": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := redisServer(t), redisServer(t)
			r, err := proxytest.NewRelay("unix:"+first, proxytest.Faults{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.Close)
			h := start(t, r.Addr(), func(c *Config) {
				share(c)
				c.Backend.Credentials, c.unavailableTimeout = credentials("", ""), patience
			})
			w := h.dial()
			w.do(":1\r\n", "EVAL", script, "0")
			h.closeUnused(h.sessionOf(w))
			r.Silence()
			if same {
				w.do(":1\r\n", "EVALSHA", scriptSum, "0")
				if n := h.Stats().BackendRecoveries["silent"]; n != 1 {
					t.Errorf("counted %d times", n)
				}
				return
			}
			r.Retarget("unix:" + second)
			w.send(cmd("EVALSHA", scriptSum, "0"))
			w.endsUnanswered()
			h.wantClosed(closeScripts, 1)
		})
	}
}

// Anybody may find the channel of the witness and publish to it. The witness takes no message for an answer.
func TestMessagesToTheWitnessEndNothing(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) {
		share(c)
		c.Backend.Credentials, c.unavailableTimeout = credentials("", ""), patience
	})
	w, other := h.dial(), h.dial()
	w.do(":1\r\n", "EVAL", script, "0")
	other.send(cmd("PUBSUB", "CHANNELS", "dragontls:witness:*"))
	other.want("*1\r\n$34\r\n")
	channel := strings.TrimSpace(other.line())
	for range 10 {
		other.do(":1\r\n", "PUBLISH", channel, "message")
		h.closeUnused(h.sessionOf(w))
		w.do(":1\r\n", "EVALSHA", scriptSum, "0")
	}
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// Anybody may find the channel of the witness, subscribe to it, and have the backend look like a replica. That ends nobody.
func TestSubscribersOfTheWitnessEndNothing(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) {
		share(c)
		c.Backend.Credentials, c.unavailableTimeout = credentials("", ""), patience
	})
	w, other, subscriber := h.dial(), h.dial(), h.dial()
	w.do(":1\r\n", "EVAL", script, "0")
	other.send(cmd("PUBSUB", "CHANNELS", "dragontls:witness:*"))
	other.want("*1\r\n$34\r\n")
	channel := strings.TrimSpace(other.line())
	subscriber.do("*3\r\n$9\r\nsubscribe\r\n"+bulk(channel)+":1\r\n", "SUBSCRIBE", channel)
	other.do("-READONLY x\r\n", "EVAL", "return redis.error_reply('READONLY x')", "0")
	eventually(t, "the backend moves", func() bool { return h.moves() == 1 })
	for range 3 {
		h.closeUnused(h.sessionOf(w))
		w.do(":1\r\n", "EVALSHA", scriptSum, "0")
	}
	if n := h.Stats().SessionsClosed[string(closeScripts)]; n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// Behind a stable address another process may take the place of the last one, which lives on, and nobody notices. A transaction with a
// script runs wholly or not at all then, even if somebody in the other process pretends to be the witness.
func TestNoHalfTransactionAfterAFailoverThatNobodyHasNoticed(t *testing.T) {
	t.Parallel()
	const transaction = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:1\r\n"
	send := func(h *harness, w *wire) {
		h.closeUnused(h.sessionOf(w))
		w.send(cmd("MULTI") + cmd("SET", "paid", "1") + cmd("EVALSHA", scriptSum, "0") + cmd("EXEC"))
	}
	begin := func(t *testing.T) (*stableAddress, *harness, *wire) {
		a := newStableAddress(t, "")
		h := start(t, a.Addr(), func(c *Config) {
			share(c)
			c.Backend.Credentials, c.unavailableTimeout = credentials("", ""), patience
		})
		return a, h, h.dial()
	}
	t.Run("after the first script", func(t *testing.T) {
		t.Parallel()
		a, h, w := begin(t)
		w.do(":1\r\n", "EVAL", script, "0")
		direct := dialPlain(t, a.first)
		direct.send(cmd("PUBSUB", "CHANNELS", "dragontls:witness:*"))
		direct.want("*1\r\n$34\r\n")
		channel := strings.TrimSpace(direct.line())
		a.Retarget("unix:" + a.second)
		forger := dialPlain(t, a.second)
		forger.do("*3\r\n$9\r\nsubscribe\r\n"+bulk(channel)+":1\r\n", "SUBSCRIBE", channel)
		send(h, w)
		w.endsUnanswered()
		a.at(a.second, "$-1\r\n", "GET", "paid")
		h.wantClosed(closeScripts, 1)
	})
	t.Run("before the first script", func(t *testing.T) {
		t.Parallel()
		a, h, w := begin(t)
		w.do("$-1\r\n", "CLIENT", "GETNAME")
		a.Retarget("unix:" + a.second)
		w.do(":1\r\n", "EVAL", script, "0")
		send(h, w)
		w.want(transaction)
	})
}

// A script that runs for long can be ended by a client that believes in scripts, and has no connection then.
func TestClientThatBelievesInScriptsMayEndOne(t *testing.T) {
	t.Parallel()
	socket := redisServer(t, "--busy-reply-threshold", "1")
	h := start(t, socket, func(c *Config) {
		share(c)
		c.Backend.Credentials, c.unavailableTimeout = credentials("", ""), patience
	})
	w, other := h.dial(), h.dial()
	w.do(":1\r\n", "EVAL", script, "0")
	h.closeUnused(h.sessionOf(w))
	other.send(cmd("EVAL", "while true do end", "0"))
	probe := dialPlain(t, socket)
	eventually(t, "the script runs for long", func() bool {
		probe.send(cmd("PING"))
		return strings.HasPrefix(probe.line(), "-BUSY")
	})
	w.do("+OK\r\n", "SCRIPT", "KILL")
	if line := other.line(); !strings.HasPrefix(line, "-") { // until then the script may be running
		t.Errorf("the script was answered %q", line)
	}
	w.do(":1\r\n", "EVALSHA", scriptSum, "0")
}
