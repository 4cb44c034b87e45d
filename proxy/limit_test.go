package proxy

import (
	"net"
	"testing"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// deadlines notes the last read deadline. It calls meanwhile in the middle of the first call.
type deadlines struct {
	net.Conn
	meanwhile func()
	last      time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	if f := d.meanwhile; f != nil {
		d.meanwhile = nil
		f()
	}
	d.last = t
	return nil
}

// A client leaves just when the pump takes over the time limit that held before.
func TestTimeLimitIsNotReplacedByTheOneBefore(t *testing.T) {
	t.Parallel()
	s := &session{server: bareServer()}
	conn := &deadlines{}
	up := &ownConn{Conn: &backend.Conn{Socket: &netio.Socket{Conn: conn}}, session: s}
	s.pump.up = up
	s.pump.limit.Store(int64(time.Hour))
	conn.meanwhile = func() { s.limitBackend(time.Minute) }
	s.pump.limitRead(up)
	if left := time.Until(conn.last); left > time.Minute {
		t.Errorf("the backend may be silent for %v", left)
	}
}
