package proxytest

import (
	"strconv"
	"strings"
)

func pushList(front bool) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		v, ok := c.make(args[1], kindList, r)
		if !ok {
			return
		}
		for _, e := range args[2:] {
			if front {
				v.list = append([]string{string(e)}, v.list...)
			} else {
				v.list = append(v.list, string(e))
			}
		}
		c.d.touch(c, c.db, string(args[1]))
		r.int(len(v.list))
	}
}

func popList(front bool) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		count := -1
		if len(args) == 3 {
			n, err := strconv.Atoi(string(args[2]))
			if err != nil || n < 0 {
				r.fail(notInteger)
				return
			}
			count = n
		}
		v, ok := c.get(args[1], kindList, r)
		switch {
		case !ok:
			return
		case v == nil && count < 0:
			r.null()
			return
		case v == nil:
			if r.resp3() {
				r.null()
			} else {
				r.nullArray()
			}
			return
		case count < 0:
			r.bulk(v.pop(front))
		default:
			n := min(count, len(v.list))
			r.array(n)
			for range n {
				r.bulk(v.pop(front))
			}
		}
		c.d.dropEmpty(c.db, string(args[1]))
		c.d.touch(c, c.db, string(args[1]))
	}
}

// span turns start and stop arguments into a slice range of n elements.
func span(a, b []byte, n int) (from, to int, ok bool) {
	from, e1 := strconv.Atoi(string(a))
	to, e2 := strconv.Atoi(string(b))
	if e1 != nil || e2 != nil {
		return 0, 0, false
	}
	if from < 0 {
		from = max(from+n, 0)
	}
	if to < 0 {
		to += n
	}
	to = min(to, n-1)
	if from > to {
		return 0, 0, true
	}
	return from, to + 1, true
}

func cmdLRange(c *conn, args [][]byte, r *reply) {
	v, ok := c.get(args[1], kindList, r)
	if !ok {
		return
	}
	if v == nil {
		v = &value{}
	}
	from, to, ok := span(args[2], args[3], len(v.list))
	if !ok {
		r.fail(notInteger)
		return
	}
	r.array(to - from)
	for _, e := range v.list[from:to] {
		r.bulk(e)
	}
}

// length plays LLEN, HLEN, SCARD and ZCARD.
func length(k kind) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		v, ok := c.get(args[1], k, r)
		switch {
		case !ok:
		case v == nil:
			r.int(0)
		default:
			r.int(v.size())
		}
	}
}

func cmdHSet(c *conn, args [][]byte, r *reply) {
	if len(args)%2 != 0 {
		r.fail(wrongArity("HSET"))
		return
	}
	v, ok := c.make(args[1], kindHash, r)
	if !ok {
		return
	}
	before := len(v.hash)
	for i := 2; i < len(args); i += 2 {
		v.hash[string(args[i])] = string(args[i+1])
	}
	c.d.touch(c, c.db, string(args[1]))
	r.int(len(v.hash) - before)
}

func cmdHGet(c *conn, args [][]byte, r *reply) {
	v, ok := c.get(args[1], kindHash, r)
	if !ok {
		return
	}
	if v != nil {
		if s, ok := v.hash[string(args[2])]; ok {
			r.bulk(s)
			return
		}
	}
	r.null()
}

func cmdHGetAll(c *conn, args [][]byte, r *reply) {
	v, ok := c.get(args[1], kindHash, r)
	if !ok {
		return
	}
	if v == nil {
		v = &value{}
	}
	r.pairs(len(v.hash))
	for _, f := range sortedKeys(v.hash) {
		r.bulk(f)
		r.bulk(v.hash[f])
	}
}

// removeField plays HDEL and SREM.
func removeField(k kind) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		v, ok := c.get(args[1], k, r)
		if !ok {
			return
		}
		n := 0
		if v != nil {
			for _, f := range args[2:] {
				if _, ok := v.hash[string(f)]; ok {
					delete(v.hash, string(f))
					n++
				}
			}
			c.d.dropEmpty(c.db, string(args[1]))
			c.d.touch(c, c.db, string(args[1]))
		}
		r.int(n)
	}
}

func cmdSAdd(c *conn, args [][]byte, r *reply) {
	v, ok := c.make(args[1], kindSet, r)
	if !ok {
		return
	}
	before := len(v.hash)
	for _, m := range args[2:] {
		v.hash[string(m)] = ""
	}
	c.d.touch(c, c.db, string(args[1]))
	r.int(len(v.hash) - before)
}

func cmdSMembers(c *conn, args [][]byte, r *reply) {
	v, ok := c.get(args[1], kindSet, r)
	if !ok {
		return
	}
	if v == nil {
		v = &value{}
	}
	r.set(len(v.hash))
	for _, m := range sortedKeys(v.hash) {
		r.bulk(m)
	}
}

func cmdSIsMember(c *conn, args [][]byte, r *reply) {
	v, ok := c.get(args[1], kindSet, r)
	if !ok {
		return
	}
	n := 0
	if v != nil {
		if _, in := v.hash[string(args[2])]; in {
			n = 1
		}
	}
	r.int(n)
}

func cmdZAdd(c *conn, args [][]byte, r *reply) {
	if len(args)%2 != 0 {
		r.fail(syntaxErr)
		return
	}
	var scores []float64
	for i := 2; i < len(args); i += 2 {
		f, err := strconv.ParseFloat(strings.TrimSpace(string(args[i])), 64)
		if err != nil {
			r.fail("ERR value is not a valid float")
			return
		}
		scores = append(scores, f)
	}
	v, ok := c.make(args[1], kindZset, r)
	if !ok {
		return
	}
	before := len(v.scores)
	for i, f := range scores {
		v.scores[string(args[3+2*i])] = f
	}
	c.d.touch(c, c.db, string(args[1]))
	r.int(len(v.scores) - before)
}

func cmdZScore(c *conn, args [][]byte, r *reply) {
	v, ok := c.get(args[1], kindZset, r)
	if !ok {
		return
	}
	if v != nil {
		if f, in := v.scores[string(args[2])]; in {
			r.double(f)
			return
		}
	}
	r.null()
}

// cmdZRange knows ranks and WITHSCORES, and quotes an unknown option raw.
func cmdZRange(c *conn, args [][]byte, r *reply) {
	scores := false
	for _, o := range args[4:] {
		if upper(o) != "WITHSCORES" {
			r.fail("ERR unsupported option " + string(o))
			return
		}
		scores = true
	}
	v, ok := c.get(args[1], kindZset, r)
	if !ok {
		return
	}
	if v == nil {
		v = &value{}
	}
	members := v.ranked()
	from, to, ok := span(args[2], args[3], len(members))
	if !ok {
		r.fail(notInteger)
		return
	}
	members = members[from:to]
	n := len(members)
	if scores && !r.resp3() {
		n *= 2
	}
	r.array(n)
	for _, m := range members {
		if scores && r.resp3() {
			r.array(2)
		}
		r.bulk(m)
		if scores {
			r.double(v.scores[m])
		}
	}
}
