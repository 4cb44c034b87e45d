package backend

import (
	"errors"

	"dragontls/proxy/netio"
)

// Credentials return whom a connection authenticates as. They are called at every dial, from any goroutine. An empty password: it does not
// authenticate.
type Credentials func() (user, password string, err error)

// Login is how a connection introduces itself. The zero value says nothing.
type Login struct {
	Credentials Credentials // nil: it does not authenticate
	// Mapped: clients have users of their own, so the backend must refuse what comes before AUTH. One that does not would let a client
	// drop the user it was given (ErrOpen).
	Mapped bool
	Name   string // for CLIENT SETNAME, if it is not empty. State.Name comes before it
	State  State  // what the connection is given; ErrState if the backend refuses it
	Bare   bool   // it is not given those parts of State that a backend which runs a script refuses: database and READONLY
	Proof  Proof  // what the backend is to show (ErrNoTransactions, ErrUnproven)
	// WhileLoading says what becomes of the dial if the backend is loading its data. With a Proof it fails.
	WhileLoading WhileLoading
	// AtOnce has the dial fail at once if the backend refuses connections, without a wait for its turn after a failure.
	AtOnce  bool
	Account *netio.Account // counts the bytes that the connection holds; nil: they are counted for no session or lane
}

// Proof is what the backend has to show on a connection before sessions share it.
type Proof uint8

const (
	NoProof             Proof = iota
	WithTransactions          // a nonce returns in its place, and an empty transaction runs
	WithoutTransactions       // a nonce returns in its place
)

// WhileLoading says what a dial does about a backend that is loading its data. Such a backend grants everything that a Login asks, and
// a lane's proof: Redis answers AUTH, SELECT, MULTI, EXEC and ECHO. Redis and Dragonfly refuse PING.
type WhileLoading uint8

const (
	LoadingUnasked WhileLoading = iota // the backend is not asked whether it is loading
	LoadingNoted                       // it is asked where that costs no round trip, and the dial succeeds whatever it says, see Conn.Ready
	LoadingRefused                     // it is asked, and the dial fails with ErrBusy if it is loading, see IsLoading
)

// proberLogin is that of the prober's connection.
func (b *Backend) proberLogin() Login {
	return Login{Credentials: b.c.Credentials, Mapped: b.c.Mapped != nil && b.c.Mapped()}
}

// IsUp reports whether err is the answer of a backend that is up and still takes no connection, or not this one, until somebody else
// ends a script or closes a connection: it is of no use to dial again at once.
func IsUp(err error) bool { return errors.Is(err, ErrScript) || errors.Is(err, ErrMaxClients) }

// blame returns what the outcome of a dial tells about the backend, nil if it works: it is not at fault for one user's credentials, nor
// for the prober's where each client has its own.
func (l *Login) blame(err error) error {
	if l.Mapped && (errors.Is(err, ErrAuth) || errors.Is(err, ErrOpen)) {
		return nil
	}
	if errors.Is(err, ErrState) || errors.Is(err, ErrNoTransactions) || errors.Is(err, ErrUnproven) || IsUp(err) {
		return nil
	}
	return err
}
