package backend

import (
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

func proofError(r *resp.Replies, err error) error {
	if isBusy(r) {
		return ErrBusy
	}
	return err
}

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

func stateError(r *resp.Replies) error {
	if isBusy(r) {
		return ErrBusy
	}
	return ErrState
}

// isOKOrError judges the reply to CLIENT SETNAME: a name is worth no connection, but nothing else answers it.
func isOKOrError(r *resp.Replies) error {
	switch {
	case isFull(r):
		return ErrBusy // and it closes
	case r.Kind() == '-', r.Kind() == '+' && string(r.Line()) == "OK":
		return nil
	}
	return ErrUnasked
}

func isNoAuth(r *resp.Replies) error {
	if r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "NOAUTH") {
		return nil
	}
	if isBusy(r) {
		return ErrBusy
	}
	return ErrOpen
}

func isOK(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	if isBusy(r) {
		return ErrBusy
	}
	return ErrAuth
}

// isBusy recognises what a backend says that is loading, runs a long script, or has no place: nothing of what was asked.
func isBusy(r *resp.Replies) bool {
	if r.Kind() != '-' {
		return false
	}
	line := string(r.Line())
	return isFull(r) || strings.HasPrefix(line, "LOADING") || strings.HasPrefix(line, "BUSY ") || strings.HasPrefix(line, execRefused+"BUSY ")
}

// execRefused begins Redis' answer to an EXEC that it does not run now, whatever it says behind that (BUSY, OOM, READONLY,
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
