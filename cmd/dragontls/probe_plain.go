package main

import (
	"context"
	"strings"
)

// answersInClear asks in clear first: a server that speaks RESP without TLS waits for the end of what it takes for a command,
// so that a handshake with it would run into the time-out; one that speaks TLS ends the connection at once. It reports whether it found such a server, and said so.
func (p *prober) answersInClear() bool {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	conn, err := dialRESP(ctx, "tcp", p.address)
	if err != nil {
		return false // the first handshake will say why
	}
	defer conn.Close()
	reply, err := conn.ask("PING")
	if err != nil || speaksOfTLS(reply) {
		return false
	}
	p.peer = conn.RemoteAddr().String()
	p.report.Address = p.peer
	p.report.ok("connect", p.peer)
	p.report.fail("handshake", "the port speaks RESP without TLS: PING in clear is answered "+quoted(reply),
		"name the port that speaks TLS, which is that of dragontls; where this is its port already, something else listens on it")
	return true
}

// speaksOfTLS reports whether a server that answers in clear does so only to say that it wants TLS, as Dragonfly and
// dragontls do.
func speaksOfTLS(reply string) bool {
	return strings.HasPrefix(reply, "-ERR ") && strings.Contains(reply, "TLS")
}
