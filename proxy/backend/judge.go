package backend

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"dragontls/proxy/resp"
)

func isMulti(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	return proofError(r, ErrNoTransactions)
}

func isEmptyExec(r *resp.Replies) error {
	if r.Kind() == '*' && r.Len() == 0 {
		return nil
	}
	return proofError(r, ErrNoTransactions)
}

func proofError(r *resp.Replies, err error) error { return cmp.Or(turnedAway(r), err) }

func isHello(r *resp.Replies) error {
	if r.Kind() == '%' {
		return nil
	}
	return stateError(r)
}

func isSet(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	return stateError(r)
}

func stateError(r *resp.Replies) error { return cmp.Or(turnedAway(r), ErrState) }

// isOKOrError judges the reply to CLIENT SETNAME: a name is worth no connection, but nothing else answers it.
func isOKOrError(r *resp.Replies) error {
	switch err := turnedAway(r); {
	case err != nil && !errors.Is(err, ErrScript) && !IsLoading(err):
		return err // and it closes
	case r.Kind() == '-', r.Kind() == '+' && string(r.Line()) == "OK":
		return nil
	}
	return ErrUnasked
}

func isNoAuth(r *resp.Replies) error {
	if r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "NOAUTH") {
		return nil
	}
	return cmp.Or(turnedAway(r), ErrOpen)
}

// isOK judges the reply to AUTH.
func isOK(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	if r.Kind() == '-' && WantsNoPassword(string(r.Line())) {
		return ErrNoneWanted
	}
	return cmp.Or(turnedAway(r), ErrAuth)
}

// turnedAway returns why a backend has done nothing of what was asked, whatever that was: it is loading, runs a long script or has no
// place (kinds of ErrBusy), it is in protected mode, or it speaks TLS on this port. nil: it answers something else.
func turnedAway(r *resp.Replies) error {
	if r.Kind() != '-' {
		return nil
	}
	return TurnedAway(string(r.Line()))
}

// TurnedAway is what an error reply, without its type and line end, tells of a backend that does nothing of what is asked: an error
// that Explain knows. nil: it tells something else.
func TurnedAway(line string) error {
	line = strings.TrimPrefix(line, execRefused)
	switch {
	case strings.HasPrefix(line, "ERR max number of clients"): // and it closes
		return ErrMaxClients
	case strings.HasPrefix(line, "BUSY "):
		return ErrScript
	case strings.HasPrefix(line, "LOADING"):
		return ErrBusy
	case strings.HasPrefix(line, "DENIED "): // of Redis, on accept; then it closes
		return ErrProtected
	case strings.HasPrefix(line, "ERR Bad TLS header"): // of Dragonfly, which then closes
		return ErrWantsTLS
	}
	return nil
}

// IsLoading reports whether err means that the backend is loading its data.
func IsLoading(err error) bool {
	return errors.Is(err, ErrBusy) && !IsUp(err)
}

// WantsNoPassword recognises how Redis answers AUTH where it has no password, in an error reply without its type.
func WantsNoPassword(line string) bool {
	return strings.HasPrefix(line, "ERR AUTH <password> called without any password") || strings.HasPrefix(line, "ERR Client sent AUTH, but no password")
}

// execRefused begins Redis' answer to an EXEC that it does not run now, whatever follows (BUSY, OOM, READONLY,
// MISCONF, ...); it discards the transaction.
const execRefused = "EXECABORT Transaction discarded because of: "

// EndsTransaction reports whether r is a reply to EXEC after which no transaction is open and no key is watched: it has run, or
// it was discarded.
func EndsTransaction(r *resp.Replies) bool {
	return r.Kind() == '*' || r.Null() || r.Kind() == '-' && isExecAbort(r.Line())
}

// isExecAbort recognises the errors of EXEC that discard the transaction.
func isExecAbort(line []byte) bool {
	return strings.TrimSuffix(string(line), ".") == "EXECABORT Transaction discarded because of previous errors" ||
		strings.HasPrefix(string(line), execRefused) || isElsewhere(line)
}

// elsewhere lists how the errors of a Redis cluster begin for keys that this node does not serve now, or not together. A node
// that answers EXEC with one of them has discarded the transaction (processCommand in server.c, since Redis 3.2).
var elsewhere = []string{"CROSSSLOT ", "MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN "}

func isElsewhere(line []byte) bool {
	return slices.ContainsFunc(elsewhere, func(word string) bool { return strings.HasPrefix(string(line), word) })
}
