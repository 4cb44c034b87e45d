package proxytest

import (
	"strconv"
	"time"
)

func cmdDel(c *conn, args [][]byte, r *reply) {
	n := 0
	for _, k := range args[1:] {
		if c.del(string(k)) {
			n++
		}
	}
	r.int(n)
}

func cmdExists(c *conn, args [][]byte, r *reply) {
	n := 0
	for _, k := range args[1:] {
		if c.d.dbs[c.db][string(k)] != nil {
			n++
		}
	}
	r.int(n)
}

func cmdType(c *conn, args [][]byte, r *reply) {
	v := c.d.dbs[c.db][string(args[1])]
	if v == nil {
		r.simple("none")
		return
	}
	r.simple(string(v.kind))
}

func cmdTTL(c *conn, args [][]byte, r *reply) {
	v := c.d.dbs[c.db][string(args[1])]
	switch {
	case v == nil:
		r.int(-2)
	case v.expires.IsZero():
		r.int(-1)
	default:
		r.int(int((time.Until(v.expires) + time.Second - 1) / time.Second))
	}
}

// expireIn plays EXPIRE and PEXPIRE, which quote an unknown option raw.
func expireIn(unit time.Duration) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		n, err := strconv.ParseInt(string(args[2]), 10, 64)
		if err != nil {
			r.fail(notInteger)
			return
		}
		v := c.d.dbs[c.db][string(args[1])]
		set := v != nil
		for _, o := range args[3:] {
			switch upper(o) {
			case "NX":
				set = set && v.expires.IsZero()
			case "XX":
				set = set && !v.expires.IsZero()
			case "GT", "LT":
			default:
				r.fail("ERR Unsupported option: " + string(o))
				return
			}
		}
		if !set {
			r.int(0)
			return
		}
		v.expires = time.Now().Add(time.Duration(n) * unit)
		if n <= 0 {
			delete(c.d.dbs[c.db], string(args[1]))
		}
		c.d.touch(c, c.db, string(args[1]))
		r.int(1)
	}
}

func (c *conn) expireAll() {
	c.d.expire(c.db, sortedKeys(c.d.dbs[c.db]))
}

func cmdKeys(c *conn, args [][]byte, r *reply) {
	c.expireAll()
	var found []string
	for _, k := range sortedKeys(c.d.dbs[c.db]) {
		if glob(string(args[1]), k) {
			found = append(found, k)
		}
	}
	r.array(len(found))
	for _, k := range found {
		r.bulk(k)
	}
}

func cmdScan(c *conn, _ [][]byte, r *reply) {
	c.expireAll()
	r.array(2)
	r.bulk("0")
	all := sortedKeys(c.d.dbs[c.db])
	r.array(len(all))
	for _, k := range all {
		r.bulk(k)
	}
}

func cmdDBSize(c *conn, _ [][]byte, r *reply) {
	c.expireAll()
	r.int(len(c.d.dbs[c.db]))
}

func cmdFlushAll(c *conn, _ [][]byte, r *reply) {
	for i := range c.d.dbs {
		c.d.dbs[i] = map[string]*value{}
	}
	c.d.flushed(c)
	r.ok()
}

func cmdFlushDB(c *conn, _ [][]byte, r *reply) {
	c.d.dbs[c.db] = map[string]*value{}
	c.d.flushed(c)
	r.ok()
}
