package proxy

import (
	"io"
	"slices"

	"dragontls/proxy/netio"
)

// largeBatch is the size in bytes from which a batch, or the rest of one, is not copied into the buffer of a lane: instead
// the session hands its chunk over to the lane.
const largeBatch = netio.ChunkSize / 2

// laneOut is what a lane has still to write: copied bytes, and chunks that sessions handed over, in their order.
type laneOut struct {
	copied []byte
	chunks []laneChunk
}

// laneChunk is written before laneOut.copied[at:].
type laneChunk struct {
	chunk *netio.Chunk
	b     []byte // the part of chunk to be written
	at    int
}

func (o *laneOut) empty() bool { return len(o.copied) == 0 && len(o.chunks) == 0 }

// held returns how many bytes of memory o holds, unused ones included.
func (o *laneOut) held() int { return cap(o.copied) + len(o.chunks)*netio.ChunkSize }

// take adds the batch b of a session after everything else. hot
func (o *laneOut) take(s *session, b []byte) {
	if k := s.handOver(b); k != nil {
		o.chunks = append(o.chunks, laneChunk{chunk: k, b: b, at: len(o.copied)})
		return
	}
	o.copied = append(o.copied, b...)
}

// putFirst adds b, the end of a batch of a session, before everything else.
func (o *laneOut) putFirst(s *session, b []byte) {
	if k := s.handOver(b); k != nil {
		o.chunks = slices.Insert(o.chunks, 0, laneChunk{chunk: k, b: b})
		return
	}
	o.copied = slices.Insert(o.copied, 0, b...)
	for i := range o.chunks {
		o.chunks[i].at += len(b)
	}
}

// handOver takes the chunk of the session's batch from the session and returns it, if b is a large part of that batch;
// otherwise it returns nil. The capacity of b ends at the chunk's end only if b still lies in the chunk: append may have
// moved it. hot
func (s *session) handOver(b []byte) *netio.Chunk {
	c := &s.client
	k := c.outChunk
	if len(b) < largeBatch || k == nil || &b[:cap(b)][cap(b)-1] != &k[netio.ChunkSize-1] {
		return nil
	}
	s.account().Hold(-netio.ChunkSize)
	c.out, c.outChunk = nil, nil
	return k
}

// writeTo writes everything.
func (o *laneOut) writeTo(w io.Writer) error {
	from := 0
	for _, k := range o.chunks {
		if err := writeSome(w, o.copied[from:k.at]); err != nil {
			return err
		}
		if err := writeSome(w, k.b); err != nil {
			return err
		}
		from = k.at
	}
	return writeSome(w, o.copied[from:])
}

func writeSome(w io.Writer, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// release gives the chunks back to the pool and returns o emptied, for further use. The caller must be done with writing o.
func (o *laneOut) release(b *netio.Buffers) laneOut {
	for _, k := range o.chunks {
		b.PutChunk(k.chunk)
	}
	clear(o.chunks)
	return laneOut{o.copied[:0], o.chunks[:0]}
}
