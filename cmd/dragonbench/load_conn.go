package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

const (
	// connectTimeout ends a connect and handshake that hangs.
	connectTimeout = 10 * time.Second
	// replyTimeout ends a wait for one reply.
	replyTimeout = 30 * time.Second
	// connBuffer holds a few replies of 4 KiB; larger values are compared as they come.
	connBuffer = 16 << 10
)

// errorReply is what the peer answered instead of the reply that was due: its first word only.
type errorReply struct{ code string }

func (e errorReply) Error() string { return "reply " + e.code }

// errWrongReply means that the bytes are not those of the reply that was due.
var errWrongReply = errors.New("wrong reply")

// errorKind is a short name under which an error is counted.
func errorKind(err error) string {
	var reply errorReply
	var alert tls.AlertError
	var network net.Error
	switch {
	case errors.As(err, &reply):
		return reply.Error()
	case errors.Is(err, errWrongReply), errors.Is(err, errNotResumed):
		return err.Error()
	case errors.As(err, &alert):
		return alert.Error()
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed by peer"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// client is one connection of the generator. It belongs to one goroutine.
type client struct {
	conn net.Conn
	tls  *tls.Conn // nil: in clear
	r    *bufio.Reader
	w    *bufio.Writer
}

// dial connects and finishes the handshake. In TLS 1.3 only the first byte from the peer proves that it accepted ours.
func dial(ctx context.Context, address string, config *tls.Config) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return handshake(ctx, conn, config)
}

// handshake makes a client of conn, which it closes if it fails.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*client, error) {
	c := &client{conn: conn}
	if config != nil {
		c.tls = tls.Client(conn, config)
		if err := c.tls.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		c.conn = c.tls
	}
	c.r = bufio.NewReaderSize(c.conn, connBuffer)
	c.w = bufio.NewWriterSize(c.conn, connBuffer)
	return c, nil
}

// abort closes without TIME_WAIT: a run makes more connections than there are ports.
func (c *client) abort() {
	raw := c.conn
	if c.tls != nil {
		raw = c.tls.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	raw.Close()
}

func (c *client) expectReplyWithin(limit time.Duration) {
	c.conn.SetReadDeadline(time.Now().Add(limit))
}

// reply reads exactly want. An error reply in its place leaves the connection usable, anything else does not.
func (c *client) reply(want []byte) error {
	first, err := c.r.Peek(1)
	if err != nil {
		return err
	}
	if first[0] == '-' && want[0] != '-' {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("%w: %w", errWrongReply, err)
		}
		code, _, _ := bytes.Cut(bytes.TrimSpace(line[1:]), []byte(" "))
		return errorReply{string(code)}
	}
	for len(want) > 0 {
		if _, err := c.r.Peek(1); err != nil {
			return err
		}
		got, _ := c.r.Peek(min(len(want), c.r.Buffered()))
		if !bytes.Equal(got, want[:len(got)]) {
			return errWrongReply
		}
		want = want[len(got):]
		_, _ = c.r.Discard(len(got)) // it is buffered
	}
	return nil
}

// ask sends one command and reads its reply.
func (c *client) ask(command, want []byte) error {
	c.expectReplyWithin(replyTimeout)
	if _, err := c.w.Write(command); err != nil {
		return err
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	return c.reply(want)
}

var (
	pingCommandBytes = encodeCommand("PING")
	pongReply        = []byte("+PONG\r\n")
	okReply          = []byte("+OK\r\n")
)

// encodeCommand makes the array of bulk strings that RESP calls a command.
func encodeCommand(args ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		b = appendBulk(b, arg)
	}
	return b
}

func appendBulk[T string | []byte](b []byte, s T) []byte {
	b = append(b, '$')
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, "\r\n"...)
	b = append(b, s...)
	return append(b, "\r\n"...)
}
