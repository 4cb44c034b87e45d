package resp

import (
	"strconv"

	"github.com/tidwall/redcon"
)

// Stream goes on with a command that is too big to be held. The first call gets the held buf from the command's start
// (the framer starts over), later ones what follows; canonical bytes are appended to dst, the contents of bulks as
// they come. n bytes of in were consumed; a cut header or line end (less than 64 bytes) stays unconsumed and is to be
// given again with more behind it. done: the command ended at in[:n]; Next comes after that.
//
// Limits and errors are those of Next. Name and Sub are nil from the first call on. An inline command never needs
// Stream; if one is given, it stays unconsumed until it is whole.
func (c *Commands) Stream(dst, in []byte) (out []byte, n int, done bool, err error) {
	return c.stream(dst, in, true)
}

// Skip is Stream without output.
func (c *Commands) Skip(in []byte) (n int, done bool, err error) {
	_, n, done, err = c.stream(nil, in, false)
	return n, done, err
}

func (c *Commands) stream(dst, in []byte, emit bool) (out []byte, n int, done bool, err error) {
	if c.fatal != nil {
		return dst, 0, false, c.fatal
	}
	if !c.streaming {
		c.restart()
		c.streaming = true
	}
	if len(in) == 0 {
		return dst, 0, false, nil
	}
	if c.args == 0 {
		if in[0] != '*' {
			n, done, err = c.nextInline(in)
			c.streaming = !c.ended
			if done && emit {
				dst = appendInline(dst, in[:n], c.args)
			}
			return dst, n, done, err
		}
		if n, err = c.arrayHeader(in); n == 0 {
			return dst, 0, false, err
		}
		if emit {
			dst = redcon.AppendArray(dst, c.args)
		}
	}
	for c.left > 0 {
		if c.bulk < 0 {
			size, err := c.bulkHeader(in[n:])
			if size == 0 {
				return dst, n, false, err
			}
			n += size
			if emit {
				dst = appendBulkHeader(dst, c.bulk)
			}
		}
		take := int(min(c.bulk, int64(len(in)-n)))
		if emit {
			dst = append(dst, in[n:n+take]...)
		}
		n += take
		c.bulk -= int64(take)
		if len(in)-n < 2 {
			return dst, n, false, nil
		}
		if in[n] != '\r' || in[n+1] != '\n' {
			return dst, n, false, c.fail(errParse)
		}
		n += 2
		if emit {
			dst = append(dst, '\r', '\n')
		}
		c.bulk = -1
		c.left--
	}
	c.ended, c.streaming = true, false
	return dst, n, true, nil
}

func appendBulkHeader(dst []byte, length int64) []byte {
	dst = strconv.AppendInt(append(dst, '$'), length, 10)
	return append(dst, '\r', '\n')
}
