package proxy

import "fmt"

const (
	// maxHandshakeBytes is all that is read from a peer before its handshake is done. Two ClientHellos with a session
	// ticket and the certificates fit in, each of the three with the 9 KiB that a client's chain may have (certs.maxSentBytes).
	maxHandshakeBytes = 32 << 10
	// maxFlightBytes is what is read of that without an answer from us. crypto/tls parses all certificates of a flight
	// before any limit on certificates applies, and 30 KiB of names take longer to parse than a handshake takes.
	maxFlightBytes = 12 << 10
)

// tooBigError refuses a peer that sends more than a handshake needs.
type tooBigError struct {
	what  string
	limit int
}

func (e *tooBigError) Error() string {
	return fmt.Sprintf("the peer sent %d bytes %s: no more is read", e.limit, e.what)
}

// allowance counts what a handshake reads. The handshake's goroutine owns it.
type allowance struct{ read, flight int }

// check fails when nothing may be read any more.
func (a *allowance) check() error {
	switch {
	case a.read >= maxHandshakeBytes:
		return &tooBigError{"before its handshake was done", maxHandshakeBytes}
	case a.flight >= maxFlightBytes:
		return &tooBigError{"of its handshake without waiting for an answer", maxFlightBytes}
	}
	return nil
}

// room returns how much may be read at once.
func (a *allowance) room() int { return min(maxHandshakeBytes-a.read, maxFlightBytes-a.flight) }

func (a *allowance) took(n int) {
	a.read += n
	a.flight += n
}

// answered begins the peer's next flight.
func (a *allowance) answered() { a.flight = 0 }
