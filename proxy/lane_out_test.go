package proxy

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// What a lane is given goes out in its order, whether it was copied or handed over, and nothing of it stays with anybody.
func TestLaneWritesWhatItWasGivenInItsOrder(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s, _ := onALane(t)
	b := s.account().Buffers()
	batch := func() []byte {
		c := &s.client
		c.outChunk = s.account().Chunk()
		c.out = c.outChunk[:1+r.IntN(netio.ChunkSize)]
		for i := range c.out {
			c.out[i] = byte(r.Uint32())
		}
		return c.out
	}
	var out laneOut
	for round := range 50 {
		var want, got []byte
		handed := 0
		n := r.IntN(6)
		first := r.IntN(2*n + 1) // which of them, if any, is what a direct write left beside what came meanwhile
		for i := range n {
			p := batch()
			switch {
			case i == first:
				p = p[r.IntN(len(p)):]
				want = append(bytes.Clone(p), want...)
				out.putFirst(s, p)
			default:
				if len(p)+backend.NonceSize < netio.ChunkSize && r.IntN(3) == 0 {
					p = backend.AppendNonce(p, 1)
				}
				want = append(want, p...)
				out.take(s, p)
			}
			if s.client.outChunk == nil {
				handed++
			}
			s.freeOut()
		}
		if n := len(out.chunks); n != handed || out.held() != cap(out.copied)+n*netio.ChunkSize {
			t.Fatalf("round %d: %d chunks, %d were handed over; it holds %d bytes", round, n, handed, out.held())
		}
		var w bytes.Buffer
		if err := out.writeTo(&w); err != nil {
			t.Fatal(err)
		}
		if got = w.Bytes(); !bytes.Equal(got, want) {
			t.Fatalf("round %d: what is written differs", round)
		}
		if out = out.release(b); !out.empty() {
			t.Fatal("something is left")
		}
		if n := s.account().Held(); n != 0 {
			t.Fatalf("round %d: the session holds %d bytes", round, n)
		}
	}
}

// A large batch does not wait for the writer, although replies are owed.
func TestLargeBatchIsWrittenAtOnce(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	one, two := settled(h), settled(h)
	_, stuck := h.lane().stick(t)
	held := b.hold("held")
	one.send(cmd("GET", "held"))
	<-held.reached
	stuck.armed.Store(true) // for the writer
	two.send(cmd("SET", "k", strings.Repeat("v", 60<<10)))
	eventually(t, "it is in flight", func() bool { return h.lane().inFlight() == 2 })
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
	l.up.Socket.Conn.(*net.TCPConn).SetWriteBuffer(4096)
	held := b.hold("held")
	one.send(cmd("GET", "held"))
	<-held.reached
	const sets = 200
	go io.WriteString(two, strings.Repeat(cmd("SET", "k", strings.Repeat("v", 60<<10)), sets)) // ends with its connection
	eventually(t, "a chunk waits", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.writing >= netio.ChunkSize
	})
	held.release()
	one.want(valueOf("held"))
	for range sets {
		two.want("+OK\r\n")
	}
	eventually(t, "nothing is held", func() bool { return h.sessionOf(two).account().Held() == 0 })
}
