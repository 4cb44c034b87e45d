package proxytest

import (
	"sort"
	"time"
)

type kind string

const (
	kindString kind = "string"
	kindList   kind = "list"
	kindHash   kind = "hash"
	kindSet    kind = "set"
	kindZset   kind = "zset"

	wrongType  = "WRONGTYPE Operation against a key holding the wrong kind of value"
	notInteger = "ERR value is not an integer or out of range"
	syntaxErr  = "ERR syntax error"
)

type value struct {
	kind    kind
	str     []byte
	list    []string
	hash    map[string]string // of a set: the keys
	scores  map[string]float64
	expires time.Time // zero: never
}

func (v *value) pop(front bool) string {
	i := len(v.list) - 1
	if front {
		i = 0
	}
	s := v.list[i]
	if front {
		v.list = v.list[1:]
	} else {
		v.list = v.list[:i]
	}
	return s
}

func (v *value) size() int {
	switch v.kind {
	case kindList:
		return len(v.list)
	case kindHash, kindSet:
		return len(v.hash)
	case kindZset:
		return len(v.scores)
	}
	return 1
}

// ranked lists the members of a sorted set by score, then name.
func (v *value) ranked() []string {
	m := sortedKeys(v.scores)
	sort.SliceStable(m, func(i, j int) bool { return v.scores[m[i]] < v.scores[m[j]] })
	return m
}

// get returns the key's value if it is of kind k; ok is false, and an error answered, if it is of another.
func (c *conn) get(key []byte, k kind, r *reply) (v *value, ok bool) {
	v = c.d.dbs[c.db][string(key)]
	if v != nil && v.kind != k {
		r.fail(wrongType)
		return nil, false
	}
	return v, true
}

// make is get for writers: a missing key comes to be.
func (c *conn) make(key []byte, k kind, r *reply) (v *value, ok bool) {
	v, ok = c.get(key, k, r)
	if ok && v == nil {
		v = &value{kind: k, hash: map[string]string{}, scores: map[string]float64{}}
		c.d.dbs[c.db][string(key)] = v
	}
	return v, ok
}

func (c *conn) setString(key, val []byte) {
	c.d.dbs[c.db][string(key)] = &value{kind: kindString, str: append([]byte(nil), val...)}
	c.d.touch(c, c.db, string(key))
}

func (c *conn) del(key string) bool {
	if c.d.dbs[c.db][key] == nil {
		return false
	}
	delete(c.d.dbs[c.db], key)
	c.d.touch(c, c.db, key)
	return true
}

func (d *Dragonfly) dropEmpty(db int, key string) {
	if v := d.dbs[db][key]; v != nil && v.size() == 0 {
		delete(d.dbs[db], key)
	}
}

// expire drops those of the keys whose time is over.
func (d *Dragonfly) expire(db int, keys []string) {
	for _, k := range keys {
		if v := d.dbs[db][k]; v != nil && !v.expires.IsZero() && !time.Now().Before(v.expires) {
			delete(d.dbs[db], k)
			d.touch(nil, db, k)
		}
	}
}
