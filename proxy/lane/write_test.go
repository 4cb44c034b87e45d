package lane

import (
	"bytes"
	"math/rand/v2"
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
	buffers := netio.NewBuffers(0)
	b := &Batch{Account: buffers.NewAccount()}
	batch := func() []byte {
		b.Chunk = b.Account.Chunk()
		b.Bytes = b.Chunk[:1+r.IntN(netio.ChunkSize)]
		for i := range b.Bytes {
			b.Bytes[i] = byte(r.Uint32())
		}
		return b.Bytes
	}
	var out output
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
				out.putFirst(b, p)
			default:
				if len(p)+backend.NonceSize < netio.ChunkSize && r.IntN(3) == 0 {
					p = backend.AppendNonce(p, 1)
				}
				want = append(want, p...)
				out.take(b, p)
			}
			if b.Chunk == nil {
				handed++
			} else {
				b.Account.FreeChunk(b.Chunk)
			}
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
		if out = out.release(buffers); !out.empty() {
			t.Fatal("something is left")
		}
		if n := b.Account.Held(); n != 0 {
			t.Fatalf("round %d: the session holds %d bytes", round, n)
		}
	}
}
