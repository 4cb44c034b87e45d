//go:build prober

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"dragontls/proxy/resp"
)

// probeConn is a connection in clear whose replies are framed as those of a lane.
type probeConn struct {
	conn    net.Conn
	timeout time.Duration
	replies resp.Replies
	buf     []byte // read and not yet consumed
	chunk   [64 << 10]byte
}

const probeAsked = "nonce-asked"

func (c *probeConn) close() {
	if c != nil {
		c.conn.Close()
	}
}

// write fails no call: what is not there will not be answered.
func (c *probeConn) write(b []byte) {
	c.conn.SetDeadline(time.Now().Add(c.timeout))
	c.conn.Write(b)
}

// ask waits for one frame and makes sure that there is no other.
func (c *probeConn) ask(args ...string) ([]byte, error) {
	c.write(resp.AppendCommand(resp.AppendCommand(nil, args...), "ECHO", probeAsked))
	reply, err := c.frame()
	if err != nil {
		return nil, err
	}
	return reply, c.echoed(probeAsked)
}

// answered reads one reply and the nonce behind it; multi: those of MULTI, the call, the nonce, EXEC and the nonce again. refused
// means that the call was refused inside MULTI.
func (c *probeConn) answered(nonce string, multi bool) (refused bool, err error) {
	if !multi {
		if _, err := c.reply(); err != nil {
			return false, err
		}
		return false, c.echoed(nonce)
	}
	if err := c.says("+OK\r\n"); err != nil {
		return false, fmt.Errorf("MULTI: %w", err)
	}
	queued, err := c.reply()
	if err != nil {
		return false, fmt.Errorf("queued: %w", err)
	}
	refused = queued[0] == '-'
	next, err := c.reply()
	// Dragonfly runs at once what follows a refused command; Redis queues it.
	if atOnce := refused && string(next) == bulkOf(nonce); err == nil && !atOnce && string(next) != "+QUEUED\r\n" {
		err = fmt.Errorf("got %.200q after %.200q", next, queued)
	}
	if err != nil {
		return refused, fmt.Errorf("the command behind it in MULTI: %w", err)
	}
	exec, err := c.reply()
	if err != nil {
		return refused, fmt.Errorf("EXEC: %w", err)
	}
	if !refused {
		err = twoElements(exec, nonce)
	} else if !bytes.HasPrefix(exec, []byte("-EXECABORT")) {
		err = fmt.Errorf("EXEC after %.200q says %.200q", queued, exec)
	}
	if err != nil {
		return refused, err
	}
	return refused, c.echoed(nonce)
}

// bulkOf is a nonce as ECHO returns it.
func bulkOf(nonce string) string { return string(resp.AppendCommand(nil, nonce)[len("*1\r\n"):]) }

// twoElements wants an array of any reply and of the nonce.
func twoElements(exec []byte, nonce string) error {
	rest, ok := bytes.CutPrefix(exec, []byte("*2\r\n"))
	if !ok {
		return fmt.Errorf("EXEC of two commands says %.200q", exec)
	}
	replies := resp.Replies{Strict: true}
	n, done, err := replies.Next(rest)
	if err != nil || !done || replies.Kind() == '>' {
		return fmt.Errorf("first element of EXEC: %.200q, %v", rest, err)
	}
	if want := bulkOf(nonce); string(rest[n:]) != want {
		return fmt.Errorf("second element of EXEC: got %.200q, want %q", rest[n:], want)
	}
	return nil
}

func (c *probeConn) echoed(nonce string) error {
	return c.says(bulkOf(nonce))
}

func (c *probeConn) says(want string) error {
	got, err := c.frame()
	if err != nil {
		return fmt.Errorf("want %q: %w", want, err)
	}
	if string(got) != want {
		return fmt.Errorf("want %q, got %.200q", want, got)
	}
	return nil
}

var errPush = errors.New("a push")

// reply is a frame that is no push.
func (c *probeConn) reply() ([]byte, error) {
	f, err := c.frame()
	if err == nil && c.replies.Kind() == '>' {
		return nil, fmt.Errorf("%w: %.200q", errPush, f)
	}
	return f, err
}

func (c *probeConn) frame() ([]byte, error) {
	for seen := 0; ; {
		n, done, err := c.replies.Next(c.buf[seen:])
		seen += n
		if err != nil {
			return nil, fmt.Errorf("%w: %.200q", err, c.buf)
		}
		if done {
			f := c.buf[:seen:seen]
			c.buf = c.buf[seen:]
			return f, nil
		}
		n, err = c.conn.Read(c.chunk[:])
		c.buf = append(c.buf, c.chunk[:n]...)
		if n == 0 && err != nil {
			return nil, fmt.Errorf("%w, after %.200q", err, c.buf)
		}
	}
}
