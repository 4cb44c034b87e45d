package proxy

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"dragontls/proxy/backend"
)

// transactionOf is a MULTI with these commands, and an EXEC that is answered with the reply, as a client sends and gets it.
func transactionOf(reply string, commands ...string) (sent, got string) {
	return cmd("MULTI") + strings.Join(commands, "") + cmd("EXEC"), "+OK\r\n" + strings.Repeat("+QUEUED\r\n", len(commands)) + reply
}

// saysInExec has the backend answer each EXEC with commands in it with this reply.
func (b *laneBackend) saysInExec(reply string) {
	b.on(func(c *laneConn, args []string) (string, bool) {
		if args[0] != "EXEC" || len(c.queued) == 0 {
			return "", false
		}
		c.multi = false
		return reply, true
	})
}

// A master that has become a replica answers the write in a transaction so, inside the reply to EXEC: as on a direct connection, and
// whatever the transaction goes over, its clients then reach the new master.
func TestAnswerOfAReplicaInsideExecHasConnectionsDialledAgain(t *testing.T) {
	t.Parallel()
	answer := "*2\r\n+OK\r\n" + sayReadonly
	whole, got := transactionOf(answer, cmd("GET", "k"), cmd("SET", "k", "v"))
	quits, gotQuits := transactionOf(answer, cmd("SET", "k", "v"), cmd("QUIT"))
	for name, tt := range map[string]struct{ first, firstReply, second, reply string }{
		"on a lane":                       {second: whole, reply: got},
		"whole, on an own connection":     {second: cmd("INFO") + whole, reply: bulk("info") + got},
		"piece by piece":                  {cmd("MULTI"), "+OK\r\n", strings.TrimPrefix(whole, cmd("MULTI")), strings.TrimPrefix(got, "+OK\r\n")},
		"with watched keys":               {cmd("WATCH", "k"), "+OK\r\n", whole, got},
		"with a QUIT":                     {second: quits, reply: gotQuits},
		"on a connection that it keeps":   {cmd("CLIENT", "ID"), "+OK\r\n", whole, got},
		"without a certificate":           {second: whole, reply: got},
		"beside another transaction":      {second: whole + whole, reply: got + got},
		"without its master":              {second: whole, reply: strings.Replace(got, sayReadonly, "-MASTERDOWN Link with MASTER is down\r\n", 1)},
		"of which the error comes before": {second: whole, reply: strings.Replace(got, "+OK\r\n"+sayReadonly, sayReadonly+"$2\r\nok\r\n", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) {
				c.TLS = c.TLS.Clone()
				c.TLS.ClientAuth = tls.VerifyClientCertIfGiven
			})
			quiet, teller := h.dial(), h.dial()
			if name == "without a certificate" {
				teller = h.dialWithout()
			}
			quiet.get("0")
			teller.get("0")
			before := h.lane()
			b.saysInExec(tt.reply[strings.LastIndex(tt.reply, "*2\r\n"):])
			teller.send(tt.first)
			teller.want(tt.firstReply)
			teller.send(tt.second)
			teller.want(tt.reply)
			eventually(t, "the backend moves", func() bool { return h.moves() == 1 })
			eventually(t, "the lane takes no more work", func() bool { return before.stateNow() != laneOpen })
			quiet.get("1")
			if n := b.lanes(); n != 2 {
				t.Errorf("%d lanes were dialled", n)
			}
		})
	}
}

// What a client has stored, or a script returns deeper inside, may read like the answer of a replica. It is none.
func TestWhatOnlyReadsLikeTheAnswerOfAReplicaMovesNothing(t *testing.T) {
	t.Parallel()
	text := strings.TrimSuffix(sayReadonly, "\r\n")
	for name, answer := range map[string]string{
		"a value":            "*1\r\n" + bulk(text),
		"a value with lines": "*1\r\n" + bulk("*1\r\n"+sayReadonly),
		"a status":           "*1\r\n+" + text[1:] + "\r\n",
		"inside a script":    "*1\r\n*2\r\n:1\r\n" + sayReadonly,
		"another error":      "*1\r\n-ERR " + text[1:] + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w := h.dial()
			w.get("0")
			whole, got := transactionOf(answer, cmd("SET", "k", "v"))
			b.saysInExec(answer)
			for _, before := range []string{"", cmd("INFO")} {
				w.send(before + whole)
				w.want(map[bool]string{true: bulk("info")}[before != ""] + got)
			}
			b.on(func(_ *laneConn, args []string) (string, bool) {
				return "*1\r\n" + sayReadonly, slices.Contains([]string{"DEL", "INFO"}, args[0])
			})
			w.do("*1\r\n"+sayReadonly, "INFO") // no EXEC
			if !h.backend.Suspect(&backend.Conn{}) {
				t.Error("the backend was suspected")
			}
		})
	}
}

// A real master that was demoted answers so what a script in a transaction writes.
func TestFailoverIsSeenInsideTransactions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		a := newStableAddress(t, "")
		h := m.start(t, a.Addr(), func(c *Config) { c.Backend.Credentials = credentials("", "") })
		reads, writes := h.dial(), h.dial()
		reads.do(bulk("value"), "GET", "read")
		write := cmd("MULTI") + cmd("EVAL", "return redis.call('SET', KEYS[1], 'v')", "1", "k") + cmd("EXEC")
		writes.send(write)
		writes.want("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
		a.failover()
		writes.send(write)
		writes.want("+OK\r\n+QUEUED\r\n*1\r\n-READONLY ")
		writes.Close()
		a.at(a.second, "+OK\r\n", "SET", "read", "another")
		eventually(t, "whoever reads is at the new master", func() bool {
			reads.send(cmd("GET", "read"))
			got, err := reads.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			reads.want(map[string]string{"$5\r\n": "value\r\n", "$7\r\n": "another\r\n"}[got])
			return got == "$7\r\n" || !m.shared // a direct connection stays where it is
		})
		if m.shared {
			eventually(t, "the backend moves", func() bool { return h.Stats().BackendRecoveries["readonly"] == 1 })
		}
	})
}
