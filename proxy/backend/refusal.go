package backend

import (
	"errors"
	"fmt"
	"strings"

	"dragontls/proxy/resp"
)

// Refusal is an error of the backend in answer to what a Login asked. errors.Is finds its kind: ErrState, ErrBusy, or one of those that
// are busy too, ErrScript and ErrMaxClients.
type Refusal struct {
	Asked  string // what was asked, which holds no secret: "SELECT 9"
	Answer string // the backend's error, without type and line end
	kind   error
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%v: %s was answered %q", r.kind, r.Asked, r.Answer)
}
func (r *Refusal) Unwrap() error { return r.kind }

// Text returns the backend's error as a reply.
func (r *Refusal) Text() []byte { return resp.AppendError(nil, r.Answer) }

// maxAnswer is more than an error of Redis or Dragonfly has.
const maxAnswer = 512

// refusal returns err, which judged the frame in answer to what was asked, as a Refusal, if it is of such a kind and the frame an error.
func refusal(err error, asked string, frame []byte) error {
	if frame[0] != '-' || !errors.Is(err, ErrState) && !errors.Is(err, ErrBusy) {
		return err
	}
	line, _, _ := strings.Cut(string(frame[1:]), "\r")
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.TrimPrefix(line, execRefused))
	return &Refusal{Asked: asked, Answer: printable, kind: err}
}
