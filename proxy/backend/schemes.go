package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"dragontls/proxy/resp"
)

// tlsAlert is the first byte of a TLS record with an alert, which a TLS port may answer to what is no TLS. No reply begins with it.
const tlsAlert = 0x15

// lookAgain is LookAgain for a fresh connection of b that failed.
func (b *Backend) lookAgain(ctx context.Context, err error) error {
	network, target, targetErr := b.c.Target()
	if targetErr != nil || network != "tcp" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.connectTimeout())
	defer cancel()
	at := b.currentAddress(target)
	return LookAgain(ctx, at, b.tls() != nil, err)
}

// LookAgain finds out whether a connection to a TCP address, with TLS if it was to be secure, failed because the scheme of the backend's URL
// does not fit the port. The failure alone does not tell: redis-server resets a connection in clear to its TLS port, and waits for more of
// a ClientHello on a port without TLS, where Dragonfly closes. It returns ErrWantsTLS or ErrNoTLS with err, or else err.
func LookAgain(ctx context.Context, address string, secure bool, err error) error {
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case !secure && isClosed(err) && speaksTLS(ctx, address):
		return fmt.Errorf("%w: %w", ErrWantsTLS, err)
	case secure && (isClosed(err) || noTLS || errors.Is(err, ErrSilent)) && speaksClear(ctx, address):
		return fmt.Errorf("%w: %w", ErrNoTLS, err)
	}
	return err
}

// speaksTLS reports whether a TLS server listens at a TCP address. It sends nothing but a ClientHello, and verifies nothing.
func speaksTLS(ctx context.Context, address string) bool {
	conn, err := dialToLook(ctx, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	host, _, _ := net.SplitHostPort(address)
	err = tls.Client(conn, &tls.Config{ServerName: host, InsecureSkipVerify: true}).HandshakeContext(ctx)
	op, ok := errors.AsType[*net.OpError](err)
	return err == nil || ok && op.Op == "remote error"
}

// speaksClear reports whether what listens at a TCP address answers a PING in clear, and not only to say that it wants TLS.
func speaksClear(ctx context.Context, address string) bool {
	conn, err := dialToLook(ctx, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if _, err := conn.Write(resp.AppendCommand(nil, "PING")); err != nil {
		return false
	}
	line := make([]byte, maxAnswer)
	n := 0
	for n < len(line) && !bytes.Contains(line[:n], []byte("\r\n")) {
		more, err := conn.Read(line[n:])
		n += more
		if err != nil {
			break
		}
	}
	text, _, whole := bytes.Cut(line[:n], []byte("\r\n"))
	return whole && len(text) > 0 && (text[0] == '+' || text[0] == '-') && !errors.Is(TurnedAway(string(text[1:])), ErrWantsTLS)
}

// dialToLook connects; the deadline of ctx holds for all that is asked over the connection.
func dialToLook(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	return conn, nil
}
