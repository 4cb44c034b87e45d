package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"syscall"
	"time"
)

// maxProbeReply bounds the one line that is read of a reply: an error or a status is far shorter.
const maxProbeReply = 1024

// probeAttempt says what one connection does.
type probeAttempt struct {
	version     uint16 // the only one offered; 0: each from 1.0 to 1.3
	certificate *tls.Certificate
	commands    []string // sent at once, in RESP; none: the handshake is all
	sessions    tls.ClientSessionCache
	leaf        *x509.Certificate // the only one that the peer may show; nil: any
}

// probeResult is what came of an attempt.
type probeResult struct {
	state     tls.ConnectionState // as far as the handshake got
	requested bool                // the server asked for a client certificate
	replies   []string            // first lines
	err       error               // why the handshake, or a reply to each command, is missing
}

// try makes one connection. Nothing about the peer is verified here: what is wrong with it must not hide the rest.
func (p *prober) try(a probeAttempt) (r probeResult) {
	deadline := time.Now().Add(p.timeout)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	address := p.address
	if p.peer != "" {
		address = p.peer // one name may stand for several machines
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		r.err = err
		return r
	}
	defer raw.Close()
	p.peer = raw.RemoteAddr().String()
	raw.SetDeadline(deadline)
	conn := tls.Client(raw, p.config(a, &r.requested))
	r.err = conn.HandshakeContext(ctx)
	if r.err == nil {
		r.replies, r.err = ask(conn, a.commands)
	}
	r.state = conn.ConnectionState()
	if r.err == nil {
		conn.Close() // says goodbye
	}
	return r
}

func (p *prober) config(a probeAttempt, requested *bool) *tls.Config {
	c := &tls.Config{
		ServerName: p.serverName, InsecureSkipVerify: true, ClientSessionCache: a.sessions,
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			*requested = true
			if a.certificate == nil {
				return new(tls.Certificate), nil // shows none
			}
			return a.certificate, nil // whatever CAs the server names: it is the server that is tried
		},
	}
	if a.leaf != nil {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if !s.PeerCertificates[0].Equal(a.leaf) {
				return errors.New("another certificate than on the first connection")
			}
			return nil
		}
	}
	if a.version != 0 {
		c.MinVersion, c.MaxVersion = a.version, a.version
	}
	// All there are, or a server that only knows broken ones would pass for one that refuses the version.
	for _, suites := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range suites {
			c.CipherSuites = append(c.CipherSuites, s.ID)
		}
	}
	return c
}

// ask sends commands and reads the first line of as many replies. In TLS 1.3 a server refuses a client, and hands
// out tickets, after the handshake: both come with the first read.
func ask(conn *tls.Conn, commands []string) (replies []string, err error) {
	if len(commands) == 0 {
		return nil, nil
	}
	_, writeErr := io.WriteString(conn, strings.Join(commands, "")) // a refusal that is there already says more
	r := bufio.NewReaderSize(conn, maxProbeReply)
	for range commands {
		line, err := r.ReadSlice('\n')
		if err == nil {
			replies = append(replies, strings.TrimRight(string(line), "\r\n"))
			continue
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errors.New("its answer is no RESP")
		}
		if errors.Is(err, io.EOF) && writeErr != nil {
			err = writeErr
		}
		return replies, err
	}
	return replies, nil
}

func respCommand(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

// describe says how a connection ended.
func (p *prober) describe(err error) string {
	var op *net.OpError
	var netErr net.Error
	var header tls.RecordHeaderError
	switch {
	case err == nil:
		return "it went well"
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Sprintf("alert %q", strings.TrimPrefix(op.Err.Error(), "tls: "))
	case errors.As(err, &header):
		return "the answer is not TLS"
	case errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Sprintf("no answer within %v", p.timeout)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset without an alert"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed without an alert"
	}
	return err.Error()
}

// alertCode returns the number of the alert by which the peer said why it ends the connection, or -1. crypto/tls
// does not export its type, which is a number.
func alertCode(err error) int {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return -1
	}
	if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
		return int(v.Uint())
	}
	return -1
}

// isRefusal tells whether the peer ended the connection, with or without an alert.
func isRefusal(err error) bool {
	return alertCode(err) >= 0 || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func probeCureOfHandshake(err error) string {
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		return "this port does not speak TLS: name the one that does"
	}
	return "look for the refused handshake in the log of the endpoint"
}
