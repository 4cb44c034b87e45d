package proxy

import "fmt"

const (
	// maxHandshakeBytes bounds what is read from a peer before its handshake is finished. Two ClientHellos with a session ticket
	// and the certificates fit in: each of the three may hold a client's chain, of up to 9 KiB (certs.maxSentBytes).
	maxHandshakeBytes = 32 << 10
	// maxFlightBytes bounds what is read of that without an answer of ours in between. crypto/tls parses all certificates of a
	// flight before any limit on certificates applies, and 30 KiB of names take longer to parse than a handshake takes.
	maxFlightBytes = 12 << 10
)

// tooBigError is the error of a read from a peer that has sent more than a handshake needs.
type tooBigError struct {
	what  string
	limit int
}

func (e *tooBigError) Error() string {
	return fmt.Sprintf("the peer sent %d bytes %s: no more is read", e.limit, e.what)
}

// allowance counts the bytes that a handshake reads, in all and since the last answer. The handshake's goroutine owns it.
type allowance struct{ read, flight int }

// check returns a *tooBigError if nothing more may be read.
func (a *allowance) check() error {
	switch {
	case a.read >= maxHandshakeBytes:
		return &tooBigError{"before its handshake was done", maxHandshakeBytes}
	case a.flight >= maxFlightBytes:
		return &tooBigError{"of its handshake without waiting for an answer", maxFlightBytes}
	}
	return nil
}

// room returns how many bytes may be read now.
func (a *allowance) room() int { return min(maxHandshakeBytes-a.read, maxFlightBytes-a.flight) }

func (a *allowance) took(n int) {
	a.read += n
	a.flight += n
}

// answered notes that we wrote: what the peer sends from now on is its next flight.
func (a *allowance) answered() { a.flight = 0 }
