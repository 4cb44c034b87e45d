package backend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

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

// refusal returns err, which judged the frame in answer to what was asked, with what the frame says, if that is an error. Of an answer to
// AUTH only the first word is told: the rest may quote the password.
func refusal(err error, asked string, frame []byte) error {
	if frame[0] != '-' {
		return err
	}
	line, _, _ := strings.Cut(string(frame[1:]), "\r")
	switch {
	case errors.Is(err, ErrAuth):
		return fmt.Errorf("%w: %s was answered %s", err, asked, Code(line))
	case !errors.Is(err, ErrState) && !errors.Is(err, ErrBusy):
		return err
	}
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.TrimPrefix(line, execRefused))
	return &Refusal{Asked: asked, Answer: printable, kind: err}
}

// knownCodes are the first words of errors that may be shown where the error itself may quote a secret.
var knownCodes = []string{"ERR", "WRONGPASS", "NOAUTH", "NOPERM", "DENIED", "LOADING", "BUSY", "MISCONF", "OOM", "READONLY", "MASTERDOWN", "NOPROTO"}

// Code returns the first word of an error reply without its type, if backends have such a word.
func Code(line string) string {
	word, _, _ := strings.Cut(line, " ")
	if !slices.Contains(knownCodes, word) {
		return "by another error"
	}
	return word
}

// maxText bounds what a line of the log says of an error in full: names in certificates can be long.
const maxText = 600

// Printable returns text as it may be shown: bounded, on one line, and without what steers a terminal or the direction of writing.
func Printable(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return OnlyPrintable(text)
}

// OnlyPrintable returns text with "?" in place of each byte or character that does not print.
func OnlyPrintable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, text)
}
