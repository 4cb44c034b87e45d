package proxy

import (
	"net"
	"sync/atomic"
	"testing"
)

// A command is counted before a byte of it is written: who has its reply finds it counted.
func TestCommandIsCountedBeforeItIsWritten(t *testing.T) {
	t.Parallel()
	h, b, all := onOneLane(t, 2)
	before := h.Stats().CommandsLane["GET"]
	var direct, merged atomic.Uint64 // counted when a session writes, and when the writer does
	h.lane().replaceWith(t, func(up *backendConn) {
		write, conn := up.sock.onWriteNow, up.conn
		up.sock.onWriteNow = func(fd uintptr) bool {
			direct.CompareAndSwap(0, h.Stats().CommandsLane["GET"])
			return write(fd)
		}
		up.conn = counting{conn, func() { merged.CompareAndSwap(0, h.Stats().CommandsLane["GET"]) }}
	})
	held := b.hold("held")
	all[0].send(cmd("GET", "held"))
	<-held.reached
	if got := direct.Load(); got != before+1 {
		t.Errorf("%d are counted when a session writes the next after %d", got, before)
	}
	all[1].send(cmd("GET", "a"))
	eventually(t, "the writer writes", func() bool { return merged.Load() != 0 })
	if got := merged.Load(); got != before+2 {
		t.Errorf("%d are counted when the writer writes the next after %d", got, before+1)
	}
	held.release()
	all[0].want(valueOf("held"))
	all[1].want(valueOf("a"))
}

// counting looks before each write.
type counting struct {
	net.Conn
	look func()
}

func (c counting) Write(p []byte) (int, error) {
	c.look()
	return c.Conn.Write(p)
}
