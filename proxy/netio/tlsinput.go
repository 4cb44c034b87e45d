package netio

import "encoding/binary"

// tlsInput follows the bytes of a client into crypto/tls, to know how much of them it holds. crypto/tls makes room for a
// whole record when it has seen the header, keeps that room as long as the connection lives, and keeps the parts of a
// handshake message until it is whole. The reader of the socket owns it.
type tlsInput struct {
	header  [recordHeader]byte
	n       int32 // bytes of header that came
	size    int32 // bytes of the record behind its header
	left    int32 // ... that are still to come
	longest int32 // bytes of the longest record
	whole   int64 // bytes of records since the last byte of a command came out

	held, kept int64 // as memory said when it was counted last, see CountTLS
}

const (
	recordHeader = 5 // type, version, length (RFC 8446, 5.1)
	// recordRoom is what crypto/tls adds to the length of a record when it makes room for it.
	recordRoom = 512
	// smallRecord: the room for such records is not counted, as each handshake has some.
	smallRecord = 4 << 10
	// recordCost is the buffer that crypto/tls writes a record from.
	recordCost = PageSize + recordRoom
)

// took notes that crypto/tls took b. hot
func (t *tlsInput) took(b []byte) {
	for len(b) > 0 {
		if t.left > 0 {
			n := min(int(t.left), len(b))
			t.left -= int32(n)
			b = b[n:]
			if t.left == 0 {
				t.n = 0
				t.whole += int64(t.size)
			}
			continue
		}
		n := copy(t.header[t.n:], b)
		t.n += int32(n)
		b = b[n:]
		if t.n < recordHeader {
			return
		}
		// crypto/tls refuses what is longer than a record may be before it makes room.
		t.size = int32(binary.BigEndian.Uint16(t.header[3:]))
		t.left = t.size
		t.longest = max(t.longest, min(t.size, PageSize+2048))
		if t.left == 0 {
			t.n = 0
		}
	}
}

// InRecord reports whether a part of a TLS record has come, beyond its header, and the rest has not. The reader calls it.
func (s *Socket) InRecord() bool { return s.input.left > 0 }

// Decrypted notes that bytes of commands came out of crypto/tls: no handshake message is open, and the rest of a record has come.
// The reader calls it. hot
func (s *Socket) Decrypted() {
	s.input.gave()
	s.CountTLS()
}

// CountTLS counts what crypto/tls holds of the peer's bytes. The reader calls it before each read that waits; Release ends it. hot
func (s *Socket) CountTLS() {
	t := &s.input
	held, kept := t.memory()
	if held != t.held {
		s.account.Hold(held - t.held)
		t.held = held
	}
	if kept != t.kept {
		s.account.Keep(kept - t.kept)
		t.kept = kept
	}
}

// gave notes that bytes of commands came out of crypto/tls: no handshake message is open. hot
func (t *tlsInput) gave() { t.whole = 0 }

// memory is what crypto/tls holds: held comes back with the rest of the record or message, kept stays. bytes.Buffer, in
// which crypto/tls reads, has up to twice the room that was asked for. hot
func (t *tlsInput) memory() (held, kept int64) {
	if t.longest > smallRecord {
		kept = 2 * int64(t.longest+recordRoom)
	}
	if t.left > 0 {
		held, kept = kept, 0
	}
	if t.whole > smallRecord {
		held += 2 * t.whole
	}
	return held, kept
}
