package resp

import (
	"errors"
	"fmt"
)

// ProtocolError says what a client sent that is not a command. It never quotes the client's bytes.
type ProtocolError struct {
	Text  string // the reply without its '-' and CR LF
	Fatal bool   // nothing behind it can be framed: reply, then close
}

func (e *ProtocolError) Error() string { return e.Text }

// AppendReply appends the error as one reply line.
func (e *ProtocolError) AppendReply(dst []byte) []byte { return AppendError(dst, e.Text) }

// Dragonfly doubles the prefix; clients and tests know its wording.
var (
	errMultibulk = &ProtocolError{"ERR Protocol error: -ERR Protocol error: invalid multibulk length", true}
	errBulk      = &ProtocolError{"ERR Protocol error: -ERR Protocol error: invalid bulk length", true}
	errParse     = &ProtocolError{"ERR Protocol error: -ERR Protocol error: parse error", true}
	errInline    = &ProtocolError{"ERR Protocol error: too big inline request", true} // Redis' wording
	errHTTP      = &ProtocolError{"ERR dragontls: this is not an HTTP server", true}
	errQuotes    = &ProtocolError{"ERR dragontls: quotes and backslashes in an inline command are not supported, send a RESP array", false}
)

// ErrMalformed is wrapped by every error of Replies: the backend sent what is no reply, and nothing behind it can be
// trusted.
var ErrMalformed = errors.New("malformed reply")

var (
	errReplyType   = fmt.Errorf("%w: unknown or misplaced type byte", ErrMalformed)
	errReplyHeader = fmt.Errorf("%w: bad length or count", ErrMalformed)
	errReplyBulk   = fmt.Errorf("%w: bulk not ended by CR LF", ErrMalformed)
	errReplyDepth  = fmt.Errorf("%w: nested too deeply", ErrMalformed)
	errReplyLine   = fmt.Errorf("%w: line too long", ErrMalformed)
	errReplyBare   = fmt.Errorf("%w: bare CR or LF in a line", ErrMalformed)
	errReplyScalar = fmt.Errorf("%w: bad number, boolean or null", ErrMalformed)
)
