package proxy

import (
	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// ownConn is a backend connection that one session alone uses. Its backend reader (pump.go) rests when the session does.
type ownConn struct {
	*backend.Conn
	session *session
	rests   rester // reports whether the backend reader has a goroutine
	opened  int64  // when the session got it, see Server.now
}

// Close ends the connection and wakes its backend reader, which finds the end; any number of times, from any goroutine.
func (o *ownConn) Close() {
	o.Conn.Close()
	o.session.server.wake(o)
}

func (o *ownConn) rester() *rester       { return &o.rests }
func (o *ownConn) socket() *netio.Socket { return o.Socket }
func (o *ownConn) goOn()                 { go o.session.runPump() } // ends with the connection or the session, whose reader waits for it

// mayRest is asked by the backend reader.
func (o *ownConn) mayRest() bool {
	p := &o.session.pump
	return !p.replies.Open() && len(p.held) == 0 && p.limit.Load() == 0 && len(o.Socket.Unread()) == 0
}
