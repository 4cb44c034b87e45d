package proxy

import (
	"io"
	"net"
	"strings"
	"testing"

	"dragontls/proxy/netio"
)

// A large batch does not wait for the writer, although replies are owed.
func TestLargeBatchIsWrittenAtOnce(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	one, two := settled(h), settled(h)
	l, stuck := h.lane().stick(t)
	held := b.hold("held")
	one.send(cmd("GET", "held"))
	<-held.reached
	eventually(t, "the write of it has returned", func() bool { _, free := l.unwritten(); return free })
	stuck.armed.Store(true) // for the writer
	two.send(cmd("SET", "k", strings.Repeat("v", 60<<10)))
	eventually(t, "it is in flight", func() bool { return l.inFlight() == 2 })
	held.release()
	one.want(valueOf("held"))
	two.want("+OK\r\n")
}

// What the kernel does not take of a large batch is left to the writer, with the chunk that it is in.
func TestRestOfALargeBatchIsHandedOver(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	one, two := settled(h), settled(h)
	l := h.lane()
	l.up().Socket.Conn.(*net.TCPConn).SetWriteBuffer(4096)
	held := b.hold("held")
	one.send(cmd("GET", "held"))
	<-held.reached
	const sets = 200
	go io.WriteString(two, strings.Repeat(cmd("SET", "k", strings.Repeat("v", 60<<10)), sets)) // ends with its connection
	eventually(t, "a chunk waits", func() bool {
		return l.now("writing") >= netio.ChunkSize
	})
	held.release()
	one.want(valueOf("held"))
	for range sets {
		two.want("+OK\r\n")
	}
	eventually(t, "nothing is held", func() bool { return h.sessionOf(two).account().Held() == 0 })
}
