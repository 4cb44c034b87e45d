package backend

import (
	"bytes"
	"cmp"
	"strconv"
	"strings"

	"dragontls/proxy/resp"
)

// UnknownDatabase is what a caller of AuthenticateAgain passes if it does not know the connection's database.
const UnknownDatabase = -1

// maxClientInfo is how much of a reply to CLIENT INFO is kept to find the database. It comes after the client's name.
const maxClientInfo = 16 << 10

// AuthenticateAgain sends AUTH as at the dial, with the password as it is now, and waits for the reply. On Dragonfly a
// successful AUTH also changes the database. AuthenticateAgain selects db again or, if that is UnknownDatabase, the database
// that CLIENT INFO names before the AUTH. The connection must be Authenticated, and nothing is owed on it. r goes on with the
// frames of the connection: pass gets the pushes among them, of which the last may be left open. The goroutine that reads
// calls it. After an error nobody knows whom the connection acts as, or in which database.
func (c *Conn) AuthenticateAgain(r *resp.Replies, db int, pass func([]byte) error) error {
	user, password, err := c.credentials()
	if err != nil {
		return err
	}
	if user != c.user || password == "" {
		return ErrAuth // the proxy acts as somebody else by now
	}
	a := again{db: db}
	x := expectation{replies: r, pass: pass}
	var out []byte
	if db == UnknownDatabase {
		x.most = maxClientInfo
		out = resp.AppendCommand(out, "CLIENT", "INFO")
		x.want = append(x.want, question{"CLIENT INFO", func(r *resp.Replies) error { return a.informed(r, x.frames) }})
	}
	x.want = append(x.want, question{"AUTH", a.answered})
	if err := c.ask(appendAuth(out, user, password), &x); err != nil {
		return err
	}
	switch {
	case !a.authenticated, a.db == 0: // where AUTH changes the database, it becomes 0, or that of the user
		return nil
	case a.db == UnknownDatabase:
		return ErrState
	}
	x.want = append(x.want, question{"SELECT " + strconv.Itoa(a.db), isSet})
	return c.ask(resp.AppendCommand(nil, "SELECT", strconv.Itoa(a.db)), &x)
}

// ask writes out and waits for the replies that x expects.
func (c *Conn) ask(out []byte, x *expectation) error {
	if _, err := c.Write(out); err != nil {
		return err
	}
	return x.receive(c)
}

// again is what the replies to an AuthenticateAgain tell.
type again struct {
	db            int
	authenticated bool // AUTH has worked
}

// informed judges the reply to CLIENT INFO, of which frame is the beginning. An error leaves the database unknown.
func (a *again) informed(r *resp.Replies, frame []byte) error {
	mark := []byte(" db=")
	if k := r.Kind(); k != '$' && k != '=' || bytes.Count(frame, mark) != 1 { // a client's name may contain it too
		return nil
	}
	_, rest, _ := bytes.Cut(frame, mark)
	word, _, _ := bytes.Cut(rest, []byte(" "))
	if db, err := strconv.Atoi(string(word)); err == nil && db >= 0 {
		a.db = db
	}
	return nil
}

// answered judges the reply to AUTH. -NOPERM means that the connection acts as a user who may not authenticate, and so that no
// RESET has worked: without a user everybody may. +QUEUED means that a transaction is open, in which a command was refused:
// neither it nor the AUTH will run. In both cases the connection is as it was.
func (a *again) answered(r *resp.Replies) error {
	switch line := string(r.Line()); {
	case r.Kind() == '+' && line == "OK":
		a.authenticated = true
	case r.Kind() == '+' && line == "QUEUED", r.Kind() == '-' && strings.HasPrefix(line, "NOPERM "):
	default:
		return cmp.Or(turnedAway(r), ErrAuth)
	}
	return nil
}

// NameAgain names the connection after a RESET has taken its name, and waits for the answer, which may be a refusal. Nothing is owed on
// the connection. The goroutine that reads calls it, and r goes on with the frames.
func (c *Conn) NameAgain(name string, r *resp.Replies) error {
	if _, err := c.Write(resp.AppendCommand(nil, "CLIENT", "SETNAME", name)); err != nil {
		return err
	}
	x := expectation{replies: r, want: []question{{"CLIENT SETNAME", isOKOrError}}}
	return x.receive(c)
}
