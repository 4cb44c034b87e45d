package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"dragontls/proxy/backend"
	"dragontls/proxy/resp"
)

// errNoRESP: what answers is no Dragonfly and no Redis.
var errNoRESP = fmt.Errorf("%w: what listens there does not answer in RESP", resp.ErrMalformed)

// tlsAlert is the first byte with which a TLS server may answer what is no TLS.
const tlsAlert = 0x15

// maxReplyLine is more than any status or error of Dragonfly and Redis has.
const maxReplyLine = 4 << 10

// respConn asks commands that are answered by one line.
type respConn struct {
	net.Conn
	reader *bufio.Reader
	peer   []*x509.Certificate // chain of the server, leaf first; nil: in clear
}

func newRESPConn(c net.Conn) *respConn {
	return &respConn{Conn: c, reader: bufio.NewReaderSize(c, maxReplyLine)}
}

// dialRESP connects in clear. The deadline of ctx holds for all that is asked, too.
func dialRESP(ctx context.Context, network, address string) (*respConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	return newRESPConn(conn), nil
}

// ask sends a command and returns the line that answers it, with its type and without line end.
func (c *respConn) ask(words ...string) (string, error) {
	// A server that refuses at once may have closed already; its reason can still be read.
	_, writeErr := c.Write(resp.AppendCommand(nil, words...))
	// The first byte tells: a server that speaks something else may never send a line end.
	switch first, err := c.reader.Peek(1); {
	case err == nil && first[0] == tlsAlert:
		return "", backend.ErrWantsTLS
	case err == nil && first[0] != '+' && first[0] != '-':
		return "", errNoRESP
	}
	line, err := c.line()
	switch {
	case err == nil && line == "":
		return "", errNoRESP
	case err != nil && writeErr != nil && !errors.Is(err, errNoRESP):
		return "", writeErr
	case err != nil && isTimeout(err):
		return "", fmt.Errorf("%w: %w", backend.ErrSilent, err)
	}
	return line, err
}

// askSetting returns the value of a setting, or nothing if the backend does not tell it.
func (c *respConn) askSetting(name string) string {
	if _, err := c.Write(resp.AppendCommand(nil, "CONFIG", "GET", name)); err != nil {
		return ""
	}
	last := ""
	for _, want := range []string{"*2", "$", name, "$", ""} { // the beginnings of the lines of a pair; the last one is the value
		line, err := c.line()
		if err != nil || !strings.HasPrefix(line, want) {
			return ""
		}
		last = line
	}
	return last
}

// line reads one line, without its end.
func (c *respConn) line() (string, error) {
	line, err := c.reader.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errNoRESP
	}
	if err != nil && len(line) > 0 && line[0] != '+' && line[0] != '-' {
		return "", errNoRESP
	}
	return strings.TrimRight(string(line), "\r\n"), err
}
