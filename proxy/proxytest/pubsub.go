package proxytest

import "sort"

func (c *conn) subscriptions() int { return len(c.channels) + len(c.patterns) + len(c.shards) }

// notify sends a push; one that c's own command caused comes after its reply.
func (c *conn) notify(cause *conn, b []byte) {
	if c == cause {
		c.after = append(c.after, b...)
		return
	}
	c.append(b, true)
}

func subscribe(kind string, set func(c *conn) map[string]bool) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		for _, name := range args[1:] {
			set(c)[string(name)] = true
			r.push(3)
			r.bulk(kind)
			r.bulk(string(name))
			r.int(c.subscriptions())
		}
	}
}

// unsubscribe answers with kind; without arguments it drops all of every set, in order.
func unsubscribe(kind string, sets ...func(c *conn) map[string]bool) func(*conn, [][]byte, *reply) {
	return func(c *conn, args [][]byte, r *reply) {
		drop := func(name string) {
			for _, set := range sets {
				delete(set(c), name)
			}
			r.push(3)
			r.bulk(kind)
			r.bulk(name)
			r.int(c.subscriptions())
		}
		for _, name := range args[1:] {
			drop(string(name))
		}
		if len(args) > 1 {
			return
		}
		n := 0
		for _, set := range sets {
			for _, name := range sortedKeys(set(c)) {
				drop(name)
				n++
			}
		}
		if n == 0 {
			r.push(3)
			r.bulk(kind)
			r.null()
			r.int(c.subscriptions())
		}
	}
}

func channelSet(c *conn) map[string]bool { return c.channels }
func patternSet(c *conn) map[string]bool { return c.patterns }
func shardSet(c *conn) map[string]bool   { return c.shards }

func (d *Dragonfly) sortedConns() []*conn {
	list := make([]*conn, 0, len(d.conns))
	for _, c := range d.conns {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].id < list[j].id })
	return list
}

func cmdPublish(c *conn, args [][]byte, r *reply) {
	channel, message := string(args[1]), string(args[2])
	n := 0
	for _, o := range c.d.sortedConns() {
		m := &reply{c: o}
		if o.channels[channel] {
			n++
			m.push(3)
			m.bulk("message")
			m.bulk(channel)
			m.bulk(message)
		}
		for _, p := range sortedKeys(o.patterns) {
			if glob(p, channel) {
				n++
				m.push(4)
				m.bulk("pmessage")
				m.bulk(p)
				m.bulk(channel)
				m.bulk(message)
			}
		}
		if len(m.b) > 0 {
			o.notify(c, m.b)
		}
	}
	r.int(n)
}

func cmdSpublish(c *conn, args [][]byte, r *reply) {
	n := 0
	for _, o := range c.d.sortedConns() {
		if !o.shards[string(args[1])] {
			continue
		}
		n++
		m := &reply{c: o}
		m.push(3)
		m.bulk("smessage")
		m.bulk(string(args[1]))
		m.bulk(string(args[2]))
		o.notify(c, m.b)
	}
	r.int(n)
}

func cmdPubsub(c *conn, args [][]byte, r *reply) {
	sub := upper(args[1])
	switch {
	case sub == "CHANNELS":
		seen := map[string]bool{}
		for _, o := range c.d.conns {
			for _, set := range []map[string]bool{o.channels, o.shards} { // shard channels are listed too
				for name := range set {
					if len(args) < 3 || glob(string(args[2]), name) {
						seen[name] = true
					}
				}
			}
		}
		r.array(len(seen))
		for _, name := range sortedKeys(seen) {
			r.bulk(name)
		}
	case sub == "NUMSUB":
		r.array(2 * (len(args) - 2))
		for _, name := range args[2:] {
			n := 0
			for _, o := range c.d.conns {
				if o.channels[string(name)] {
					n++
				}
			}
			r.bulk(string(name))
			r.int(n)
		}
	case sub == "NUMPAT":
		seen := map[string]bool{}
		for _, o := range c.d.conns {
			for p := range o.patterns {
				seen[p] = true
			}
		}
		r.int(len(seen))
	case sub == "SHARDCHANNELS" || sub == "SHARDNUMSUB":
		r.fail("ERR PUBSUB " + sub + " is not supported in non cluster mode")
	default:
		r.unknownSub(sub, "PUBSUB")
	}
}

// unknownSub quotes the subcommand raw, CR LF included.
func (r *reply) unknownSub(sub, command string) {
	r.fail("ERR Unknown subcommand or wrong number of arguments for '" + sub + "'. Try " + command + " HELP.")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// glob matches * ? and backslash, of what KEYS and PSUBSCRIBE know.
func glob(p, s string) bool {
	for p != "" {
		switch p[0] {
		case '*':
			for i := 0; i <= len(s); i++ {
				if glob(p[1:], s[i:]) {
					return true
				}
			}
			return false
		case '?':
			if s == "" {
				return false
			}
		case '\\':
			if len(p) > 1 {
				p = p[1:]
			}
			if s == "" || s[0] != p[0] {
				return false
			}
		default:
			if s == "" || s[0] != p[0] {
				return false
			}
		}
		p, s = p[1:], s[1:]
	}
	return s == ""
}
