package proxytest

import (
	"fmt"
	"strings"
	"time"
)

type trackMode int

const (
	trackOff trackMode = iota
	trackOn
	trackOptIn
	trackOptOut
)

// track remembers what a tracking connection reads.
func (c *conn) track(keys []string) {
	if c.tracking == trackOff || c.tracking == trackOptIn && !c.caching || c.tracking == trackOptOut && c.caching {
		return
	}
	for _, k := range keys {
		c.tracked[dbKey{c.db, k}] = true
	}
}

// invalidate tells c that a key changed; cause made the change, nil: time did.
func (c *conn) invalidate(cause *conn, key string) {
	c.notify(cause, fmt.Appendf(nil, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(key), key))
}

func (c *conn) clientTracking(args [][]byte, r *reply) {
	if !r.resp3() {
		r.fail("ERR Client tracking is currently not supported for RESP2. Please use RESP3.")
		return
	}
	mode, noLoop := trackOn, false
	if len(args) < 3 {
		r.fail(syntaxErr)
		return
	}
	switch upper(args[2]) {
	case "ON":
	case "OFF":
		c.tracking, c.noLoop, c.tracked = trackOff, false, map[dbKey]bool{}
		r.ok()
		return
	default:
		r.fail(syntaxErr)
		return
	}
	for _, o := range args[3:] {
		switch upper(o) {
		case "OPTIN":
			mode = trackOptIn
		case "OPTOUT":
			mode = trackOptOut
		case "NOLOOP":
			noLoop = true
		default:
			r.fail(syntaxErr)
			return
		}
	}
	c.tracking, c.noLoop = mode, noLoop
	r.ok()
}

// monitorLine shows a command to monitoring connections. AUTH's arguments are hidden, those of HELLO AUTH are not.
func (d *Dragonfly) monitorLine(c *conn, args [][]byte) {
	var line []byte
	for _, o := range d.conns {
		if !o.monitor || o == c {
			continue
		}
		if line == nil {
			now := time.Now()
			line = fmt.Appendf(nil, "+%d.%06d [%d %s]", now.Unix(), now.Nanosecond()/1000, c.db, c.remote())
			for i, a := range args {
				if i > 0 && strings.EqualFold(string(args[0]), "AUTH") {
					break
				}
				line = append(line, ' ')
				line = appendQuoted(line, a)
			}
			line = append(line, '\r', '\n')
		}
		o.append(line, true)
	}
}

func appendQuoted(b, s []byte) []byte {
	b = append(b, '"')
	for _, x := range s {
		switch {
		case x == '"' || x == '\\':
			b = append(b, '\\', x)
		case x == '\r':
			b = append(b, `\r`...)
		case x == '\n':
			b = append(b, `\n`...)
		case x == '\t':
			b = append(b, `\t`...)
		case x < ' ' || x > '~':
			b = fmt.Appendf(b, `\x%02x`, x)
		default:
			b = append(b, x)
		}
	}
	return append(b, '"')
}
