package proxytest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func (c *conn) remote() string { return c.raw.RemoteAddr().String() }

func (c *conn) describe() string {
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=%d name=%s tid=0 irqmatch=1 age=%d idle=0 tot-cmds=%d tot-net-in=0 tot-read-calls=%d "+
		"tot-dispatches=0 db=%d phase=process lib-name=%s lib-ver=%s",
		c.id, c.remote(), c.raw.LocalAddr(), c.id+5, c.name, time.Now().Unix()-c.started, c.count, c.count, c.db, c.libName, c.libVer)
}

func cmdClient(c *conn, args [][]byte, r *reply) {
	sub := upper(args[1])
	rest := args[2:]
	switch {
	case sub == "SETNAME" && len(rest) == 1:
		c.name = string(rest[0])
		r.ok()
	case sub == "GETNAME" && len(rest) == 0:
		if c.name == "" {
			r.null()
			return
		}
		r.bulk(c.name)
	case sub == "ID" && len(rest) == 0:
		r.int(c.id)
	case sub == "INFO" && len(rest) == 0:
		r.bulk(c.describe() + " qbuf=0 qbuf-free=0 obl=0 argv-mem=0 oll=0 omem=0 tot-mem=0 multi=0 psub=0 sub=0")
	case sub == "LIST":
		c.clientList(rest, r)
	case sub == "SETINFO":
		c.clientSetInfo(rest, r)
	case sub == "TRACKING":
		c.clientTracking(args, r)
	case sub == "CACHING":
		if !r.resp3() {
			r.fail("ERR Client caching is currently not supported for RESP2. Please use RESP3.")
			return
		}
		if len(rest) != 1 {
			r.fail(syntaxErr)
			return
		}
		c.caching = true
		r.ok()
	case sub == "KILL" && len(rest) > 0:
		c.clientKill(rest, r)
	case sub == "PAUSE" && len(rest) > 0:
		ms, err := strconv.Atoi(string(rest[0]))
		if err != nil || ms < 0 {
			r.fail(notInteger)
			return
		}
		c.d.paused = time.Now().Add(time.Duration(ms) * time.Millisecond)
		r.ok()
	case sub == "UNPAUSE" && len(rest) == 0:
		c.d.paused = time.Time{}
		r.ok()
	default:
		r.unknownSub(sub, "CLIENT")
	}
}

func (c *conn) clientSetInfo(rest [][]byte, r *reply) {
	if len(rest) != 2 {
		r.fail(syntaxErr)
		return
	}
	switch upper(rest[0]) {
	case "LIB-NAME":
		c.libName = string(rest[1])
	case "LIB-VER":
		c.libVer = string(rest[1])
	default:
		r.fail(syntaxErr)
		return
	}
	r.ok()
}

func (c *conn) clientList(rest [][]byte, r *reply) {
	ids := map[int]bool{}
	if len(rest) > 1 {
		switch upper(rest[0]) {
		case "TYPE":
			if t := strings.ToLower(string(rest[1])); t != "normal" {
				r.fail("ERR Unknown client type '" + string(rest[1]) + "'")
				return
			}
		case "ID":
			for _, a := range rest[1:] {
				n, _ := strconv.Atoi(string(a))
				ids[n] = true
			}
		}
	}
	var b strings.Builder
	for _, o := range c.d.sortedConns() {
		if o.counted && (len(ids) == 0 || ids[o.id]) {
			b.WriteString(o.describe() + "\n")
		}
	}
	r.verbatim(b.String())
}

func (c *conn) clientKill(rest [][]byte, r *reply) {
	var match func(o *conn) bool
	switch {
	case len(rest) == 1:
		match = func(o *conn) bool { return o.remote() == string(rest[0]) }
	case len(rest) == 2 && upper(rest[0]) == "ID":
		match = func(o *conn) bool { return itoa(o.id) == string(rest[1]) }
	case len(rest) == 2 && upper(rest[0]) == "ADDR":
		match = func(o *conn) bool { return o.remote() == string(rest[1]) }
	case len(rest) == 2 && upper(rest[0]) == "LADDR":
		match = func(o *conn) bool { return o.raw.LocalAddr().String() == string(rest[1]) }
	default:
		r.fail(syntaxErr)
		return
	}
	n := 0
	for _, o := range c.d.sortedConns() {
		if match(o) {
			n++
			o.kill() // without a word; killing itself loses its replies too
		}
	}
	r.int(n)
}
