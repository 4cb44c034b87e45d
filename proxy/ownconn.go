package proxy

import (
	"sync/atomic"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// ownConn is a backend connection that one session alone uses. Its pump (pump.go) rests when the session does.
type ownConn struct {
	*backend.Conn
	session *session
	rests   rester        // reports whether the pump has a goroutine
	opened  clock.Instant // when the session got it, see Server.now
	parts   atomic.Bool   // see part
}

// Close ends the connection and wakes its pump, which finds the end; any number of times, from any goroutine.
func (o *ownConn) Close() {
	o.Conn.Close()
	o.session.server.wake(o)
}

// part gives up a connection over which nothing is owed, and which nobody can use any more but its pump. The backend
// reader hands it to Backend.Part. Any goroutine may call it.
func (o *ownConn) part() {
	o.parts.Store(true)
	o.setReadDeadline(noTime)
	o.session.server.wake(o)
}

// setReadDeadline sets the read deadline, unless the connection parts: then its pump waits no more.
func (o *ownConn) setReadDeadline(t time.Time) {
	o.Socket.SetReadDeadline(t)
	if o.parts.Load() {
		o.Socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// Drop ends the connection, after part in good order; for the pump, as its last use.
func (o *ownConn) Drop() {
	if o.parts.Load() {
		o.session.server.backend.Part(o.Conn)
		return
	}
	o.Conn.Drop()
}

func (o *ownConn) rester() *rester       { return &o.rests }
func (o *ownConn) socket() *netio.Socket { return o.Socket }
func (o *ownConn) goOn()                 { go o.session.runPump() } // ends with the connection or the session, whose reader waits for it

// mayRest is asked by the pump.
func (o *ownConn) mayRest() bool {
	p := &o.session.pump
	return !o.parts.Load() && !p.replies.Open() && len(p.held) == 0 && p.limit.Load() == 0 && len(o.Socket.Unread()) == 0
}
