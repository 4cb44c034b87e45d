package backend

import (
	"bytes"
	"errors"
	"math/rand/v2"

	"dragontls/proxy/resp"
)

// introduce authenticates the connection where there is a password, names it where there is a name, and waits for
// all answers. A PING goes before AUTH where clients have users of their own or the user is not default, and must be
// refused: a backend that serves connections without AUTH would let a client drop the user it was given.
func (c *Conn) introduce(l *Login, user, password string) error {
	var out []byte
	var want []question
	if l.Mapped || password != "" && user != "" && user != "default" {
		out = resp.AppendCommand(out, "PING")
		want = append(want, question{"PING", isNoAuth})
	}
	if password != "" {
		out = appendAuth(out, user, password)
		want = append(want, question{"AUTH", isOK})
	}
	if l.Name != "" && !l.State.Named {
		out = resp.AppendCommand(out, "CLIENT", "SETNAME", l.Name)
		want = append(want, question{"CLIENT SETNAME", isOKOrError})
	}
	state := l.State
	if l.Bare {
		state.Database, state.ReadOnly = 0, false
	}
	out, want = state.replay(out, want)
	if l.Proof != NoProof || l.WhileLoading == LoadingRefused || l.WhileLoading == LoadingNoted && len(want) > 0 {
		out = resp.AppendCommand(out, "PING")
		want = append(want, question{"PING", func(r *resp.Replies) error { return c.notLoading(r, l) }})
	}
	x := expectation{replies: new(resp.Replies), want: want, drop: l.State.RESP3}
	if l.Proof != NoProof {
		x.replies.Strict = true
		out = x.prove(out, l.Proof)
		c.proof = l.Proof
	}
	if len(x.want) == 0 {
		return nil
	}
	_, writeErr := c.Write(out)
	err := x.receive(c) // what a backend says before it closes can be read after a write to it has failed
	c.Pushed = x.dropped > 0
	if said := of(ErrBusy, ErrProtected, ErrWantsTLS); writeErr != nil && !said(err) {
		return writeErr
	}
	return err
}

// notLoading judges the reply to PING of an authenticated connection: it tells only whether the backend is loading its data. A user may
// be refused PING, and a backend that runs a script refuses it too.
func (c *Conn) notLoading(r *resp.Replies, l *Login) error {
	err := turnedAway(r)
	switch {
	case IsLoading(err) && l.WhileLoading == LoadingNoted && l.Proof == NoProof:
		return nil
	case err != nil && !errors.Is(err, ErrScript):
		return err
	case r.Kind() != '+' && r.Kind() != '-':
		return ErrUnasked
	}
	c.Ready = true
	return nil
}

// prove asks what shows that a connection may be shared: an empty transaction runs, and a random word returns.
func (x *expectation) prove(out []byte, p Proof) []byte {
	if p == WithTransactions {
		out = resp.AppendCommand(resp.AppendCommand(out, "MULTI"), "EXEC")
		x.want = append(x.want, question{"MULTI", isMulti}, question{"EXEC", isEmptyExec})
	}
	word := rand.Uint64()
	want := AppendNonceReply(nil, word)
	x.want = append(x.want, question{"ECHO", func(r *resp.Replies) error {
		if !bytes.Equal(x.frames, want) {
			return proofError(r, ErrUnproven)
		}
		return nil
	}})
	return AppendNonce(out, word)
}

// appendAuth appends AUTH, never HELLO .. AUTH, whose password MONITOR shows.
func appendAuth(b []byte, user, password string) []byte {
	if user == "" {
		return resp.AppendCommand(b, "AUTH", password)
	}
	return resp.AppendCommand(b, "AUTH", user, password)
}
