package backend

import (
	"cmp"
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

func proofError(r *resp.Replies, err error) error { return cmp.Or(busy(r), err) }

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

func stateError(r *resp.Replies) error { return cmp.Or(busy(r), ErrState) }

// isOKOrError judges the reply to CLIENT SETNAME: a name is worth no connection, but nothing else answers it.
func isOKOrError(r *resp.Replies) error {
	switch {
	case isFull(r):
		return ErrMaxClients // and it closes
	case r.Kind() == '-', r.Kind() == '+' && string(r.Line()) == "OK":
		return nil
	}
	return ErrUnasked
}

func isNoAuth(r *resp.Replies) error {
	if r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "NOAUTH") {
		return nil
	}
	return cmp.Or(busy(r), ErrOpen)
}

func isOK(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	return cmp.Or(busy(r), ErrAuth)
}

// busy returns which kind of ErrBusy a backend answers that is loading, runs a long script, or has no place: it has done nothing of what
// was asked. nil: it answers something else.
func busy(r *resp.Replies) error {
	if r.Kind() != '-' {
		return nil
	}
	line := strings.TrimPrefix(string(r.Line()), execRefused)
	switch {
	case isFull(r):
		return ErrMaxClients
	case strings.HasPrefix(line, "BUSY "):
		return ErrScript
	case strings.HasPrefix(line, "LOADING"):
		return ErrBusy
	}
	return nil
}

// execRefused begins Redis' answer to an EXEC that it does not run now, whatever follows (BUSY, OOM, READONLY,
// MISCONF, ...); it discards the transaction.
const execRefused = "EXECABORT Transaction discarded because of: "

// isFull recognises what a backend says before it closes a connection that is beyond its maxclients.
func isFull(r *resp.Replies) bool {
	return r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "ERR max number of clients")
}

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
