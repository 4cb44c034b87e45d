package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"syscall"
)

// causeOf is in words of ours why an exchange failed: the error itself may show
// the URL or a part of it, and its host can be as secret as its path.
func causeOf(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	is := func(any ...error) bool {
		return slices.ContainsFunc(any, func(known error) bool { return errors.Is(err, known) })
	}
	switch {
	case errors.As(err, &dns):
		return "dns: the webhook's host name was not resolved"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout: no answer in time"
	case is(http.ErrSchemeMismatch) || badTLS(err):
		return "tls: the webhook does not speak it, refuses us, or its certificate does not verify"
	case is(syscall.ECONNREFUSED):
		return "refused: nothing listens on the webhook's port"
	case is(syscall.EHOSTUNREACH, syscall.ENETUNREACH):
		return "unreachable: there is no route to the webhook"
	case is(io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE):
		return "closed: the connection ended before the answer"
	case is(context.Canceled):
		return "stopped: the process ends"
	}
	return "other: the exchange failed"
}

func badTLS(err error) bool {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error") // alerts of crypto/tls
}
