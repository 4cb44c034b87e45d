package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
)

var (
	// ErrAuth: the backend refused the credentials of a Login, or those of a connection have changed meanwhile.
	ErrAuth = errors.New("the backend refused the proxy's credentials")
	// ErrOpen: see Login.Mapped.
	ErrOpen = errors.New("the backend lets connections in that did not authenticate: a client could drop the user it is given")
	// ErrNoPassword is for Credentials, which wrap it when a password cannot be had. It tells nothing about the backend.
	ErrNoPassword = errors.New("read the password of the client's user")
	// ErrState: see Login.State.
	ErrState = errors.New("the backend refused the database, protocol or name that a session had")
	// ErrNoTransactions and ErrUnproven: see Login.Proof.
	ErrNoTransactions = errors.New("the backend refused an empty transaction")
	ErrUnproven       = errors.New("the backend did not answer as a connection that is to be shared must")
	// ErrUnasked: which reply comes next cannot be known any more.
	ErrUnasked = errors.New("the backend answered what was not asked")
	// ErrBusy: the backend said nothing about the Login, since it is loading or for one of the two reasons below, which match ErrBusy too.
	ErrBusy = errors.New("the backend takes no connection now")
	// ErrScript: a long script runs in the backend, which refuses most commands until it ends. Other connections may be of use.
	ErrScript = fmt.Errorf("%w: it runs a script", ErrBusy)
	// ErrMaxClients: the backend has as many connections as it takes.
	ErrMaxClients = fmt.Errorf("%w: its maxclients is reached", ErrBusy)
	// ErrDialPanicked: nobody knows what the backend would have answered.
	ErrDialPanicked = errors.New("panic in a dial")

	errFull     = errors.New("BACKEND_MAX_CONNECTIONS is reached")
	errSettings = errors.New("read the backend's address and credentials")
	errTLS      = errors.New("TLS with the backend")
)

// Reason returns why a dial or a probe failed, as one of a few words: it is a metric's label.
func Reason(err error) string {
	var ne net.Error
	var op *net.OpError
	switch {
	case isOutOfPorts(err):
		return "no_ports"
	case errors.Is(err, ErrAuth):
		return "auth"
	case errors.Is(err, ErrOpen):
		return "unauthenticated_access"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	case errors.Is(err, errSettings):
		return "settings"
	case errors.Is(err, ErrMaxClients):
		return "max_clients"
	case errors.Is(err, ErrState):
		return "state"
	case errors.Is(err, ErrBusy):
		return "busy"
	case errors.Is(err, ErrUnasked):
		return "unasked"
	case errors.Is(err, errTLS), errors.As(err, &op) && op.Op == "remote error":
		return "tls"
	}
	return "dial"
}
