package proxytest

import "strconv"

func cmdPing(c *conn, args [][]byte, r *reply) {
	if len(args) > 2 {
		r.fail(wrongArity("PING"))
		return
	}
	if c.subscriptions() > 0 && !r.resp3() {
		r.array(2)
		r.bulk("pong")
		if len(args) == 2 {
			r.bulk(string(args[1]))
		} else {
			r.bulk("")
		}
		return
	}
	if len(args) == 2 {
		r.bulk(string(args[1]))
		return
	}
	r.simple("PONG")
}

func cmdEcho(_ *conn, args [][]byte, r *reply) { r.bulk(string(args[1])) }

func cmdSelect(c *conn, args [][]byte, r *reply) {
	n, err := strconv.Atoi(string(args[1]))
	switch {
	case err != nil:
		r.fail("ERR invalid DB index")
	case n < 0 || n >= len(c.d.dbs):
		r.fail("ERR DB index is out of range")
	case c.inExec:
		r.fail("ERR SELECT is not allowed in regular EXEC/EVAL")
	default:
		c.db = n
		r.ok()
	}
}

const (
	wrongPass   = "WRONGPASS invalid username-password pair or user is disabled."
	helloNoAuth = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> " +
		"option can be used to authenticate the client and select the RESP protocol version at the same time"
)

// cmdHello goes back to RESP2 if no protocol is named.
func cmdHello(c *conn, args [][]byte, r *reply) {
	proto := 2
	var auth [][]byte
	var name []byte
	named := false
	if len(args) > 1 {
		switch string(args[1]) {
		case "2":
			proto = 2
		case "3":
			proto = 3
		default:
			r.fail("ERR unknown command 'HELLO' with args beginning with: `" + string(args[1]) + "`")
			return
		}
	}
	for i := 2; i < len(args); i++ {
		switch opt := upper(args[i]); {
		case opt == "AUTH" && i+2 < len(args):
			auth = args[i+1 : i+3]
			i += 2
		case opt == "SETNAME" && i+1 < len(args):
			name, named = args[i+1], true
			i++
		default:
			r.fail(syntaxErr)
			return
		}
	}
	switch {
	case auth != nil && !c.login(string(auth[0]), string(auth[1])):
		r.fail(wrongPass)
		return
	case !c.authed:
		r.fail(helloNoAuth)
		return
	}
	if named {
		c.name = string(name)
	}
	c.proto = proto
	r.pairs(7)
	for _, kv := range [][2]string{{"server", "redis"}, {"version", "7.4.0"}, {"dragonfly_version", c.d.version()}} {
		r.bulk(kv[0])
		r.bulk(kv[1])
	}
	r.bulk("proto")
	r.int(proto)
	r.bulk("id")
	r.int(c.id)
	for _, kv := range [][2]string{{"mode", "standalone"}, {"role", "master"}} {
		r.bulk(kv[0])
		r.bulk(kv[1])
	}
}

func cmdAuth(c *conn, args [][]byte, r *reply) {
	user, pass := "default", args[len(args)-1]
	switch len(args) {
	case 2:
	case 3:
		user = string(args[1])
	default:
		r.fail(syntaxErr)
		return
	}
	if !c.login(user, string(pass)) {
		r.fail(wrongPass)
		return
	}
	r.ok()
}

// cmdReset leaves the names of the connection and of its library alone.
func cmdReset(c *conn, _ [][]byte, r *reply) {
	c.endTx()
	c.db, c.proto, c.user = 0, 2, "default"
	c.authed = c.d.config["requirepass"] == ""
	c.channels, c.patterns, c.shards = map[string]bool{}, map[string]bool{}, map[string]bool{}
	c.monitor, c.tracking, c.noLoop, c.tracked = false, trackOff, false, map[dbKey]bool{}
	r.simple("RESET")
}

// cmdQuit loses the replies that are not out if input waits behind QUIT. August2026 may lose them anyway, unless EXEC runs
// the QUIT; the fake always does.
func cmdQuit(c *conn, _ [][]byte, r *reply) {
	c.closing = true
	c.dropped = c.behind || c.d.opt.Release == August2026 && !c.inExec && c.unsent()
	if c.tx != txCollect {
		r.ok()
	}
}

func cmdMonitor(c *conn, _ [][]byte, r *reply) {
	c.monitor = true
	r.ok()
}
