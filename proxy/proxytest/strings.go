package proxytest

import (
	"strconv"
	"time"
)

func cmdGet(c *conn, args [][]byte, r *reply) {
	if v, ok := c.get(args[1], kindString, r); ok {
		r.value(v)
	}
}

func (r *reply) value(v *value) {
	if v == nil {
		r.null()
		return
	}
	r.bulk(string(v.str))
}

func cmdSet(c *conn, args [][]byte, r *reply) {
	var nx, xx, get, keep bool
	var ttl time.Duration
	for i := 3; i < len(args); i++ {
		switch opt := upper(args[i]); opt {
		case "NX":
			nx = true
		case "XX":
			xx = true
		case "GET":
			get = true
		case "KEEPTTL":
			keep = true
		case "EX", "PX":
			i++
			if i == len(args) {
				r.fail(syntaxErr)
				return
			}
			n, err := strconv.ParseInt(string(args[i]), 10, 64)
			if err != nil {
				r.fail(notInteger)
				return
			}
			if n <= 0 {
				r.fail("ERR invalid expire time in 'set' command")
				return
			}
			ttl = time.Duration(n) * time.Second
			if opt == "PX" {
				ttl = time.Duration(n) * time.Millisecond
			}
		default:
			r.fail(syntaxErr)
			return
		}
	}
	if nx && xx {
		r.fail(syntaxErr)
		return
	}
	old := c.d.dbs[c.db][string(args[1])]
	if get {
		if old != nil && old.kind != kindString {
			r.fail(wrongType)
			return
		}
		r.value(old)
	}
	if nx && old != nil || xx && old == nil {
		if !get {
			r.null()
		}
		return
	}
	c.setString(args[1], args[2])
	v := c.d.dbs[c.db][string(args[1])]
	if keep && old != nil {
		v.expires = old.expires
	}
	if ttl > 0 {
		v.expires = time.Now().Add(ttl)
	}
	if !get {
		r.ok()
	}
}

func (c *conn) add(key []byte, by int64, r *reply) {
	v, ok := c.get(key, kindString, r)
	if !ok {
		return
	}
	var n int64
	if v != nil {
		var err error
		if n, err = strconv.ParseInt(string(v.str), 10, 64); err != nil {
			r.fail(notInteger)
			return
		}
	}
	n += by
	if v == nil {
		v, _ = c.make(key, kindString, r)
	}
	v.str = strconv.AppendInt(nil, n, 10)
	c.d.touch(c, c.db, string(key))
	r.int(int(n))
}

func cmdIncr(c *conn, args [][]byte, r *reply) { c.add(args[1], 1, r) }
func cmdDecr(c *conn, args [][]byte, r *reply) { c.add(args[1], -1, r) }

func cmdIncrBy(c *conn, args [][]byte, r *reply) {
	n, err := strconv.ParseInt(string(args[2]), 10, 64)
	if err != nil {
		r.fail(notInteger)
		return
	}
	c.add(args[1], n, r)
}

func cmdAppend(c *conn, args [][]byte, r *reply) {
	v, ok := c.make(args[1], kindString, r)
	if !ok {
		return
	}
	v.str = append(v.str, args[2]...)
	c.d.touch(c, c.db, string(args[1]))
	r.int(len(v.str))
}

func cmdStrlen(c *conn, args [][]byte, r *reply) {
	v, ok := c.get(args[1], kindString, r)
	switch {
	case !ok:
	case v == nil:
		r.int(0)
	default:
		r.int(len(v.str))
	}
}

func cmdMset(c *conn, args [][]byte, r *reply) {
	if len(args)%2 == 0 {
		r.fail(wrongArity("MSET"))
		return
	}
	for i := 1; i < len(args); i += 2 {
		c.setString(args[i], args[i+1])
	}
	r.ok()
}

func cmdMget(c *conn, args [][]byte, r *reply) {
	r.array(len(args) - 1)
	for _, k := range args[1:] {
		v := c.d.dbs[c.db][string(k)]
		if v != nil && v.kind != kindString {
			v = nil
		}
		r.value(v)
	}
}
