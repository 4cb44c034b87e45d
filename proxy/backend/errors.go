package backend

import (
	"errors"
	"fmt"
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
	// ErrNoneWanted: a password was sent, and the backend has none. It is an ErrAuth.
	ErrNoneWanted = fmt.Errorf("%w: it has no password", ErrAuth)
	// ErrWantsTLS: the backend speaks TLS on this port, and was asked in clear. ErrNoTLS: the reverse.
	ErrWantsTLS = errors.New("TLS is wanted")
	ErrNoTLS    = errors.New("no TLS")
	// ErrProtected: the backend has no password and serves its own machine alone.
	ErrProtected = errors.New("protected mode")
	// ErrTLS: the handshake failed. ErrSilent: the backend took the connection, and no answer came in time.
	ErrTLS    = errors.New("TLS with the backend")
	ErrSilent = errors.New("the backend took the connection and was silent")
	// ErrDialPanicked: nobody knows what the backend would have answered.
	ErrDialPanicked = errors.New("panic in a dial")

	errFull     = errors.New("BACKEND_MAX_CONNECTIONS is reached")
	errSettings = errors.New("read the backend's address and credentials")
)
