package netio

import "encoding/binary"

// tlsInput follows the bytes of a client that go into crypto/tls, to know how much memory they take there. crypto/tls makes
// room for a whole record when it has seen the header, keeps that room as long as the connection lives, and keeps the parts
// of a handshake message until it is whole. The goroutine that reads the socket owns it.
type tlsInput struct {
	header  [recordHeader]byte
	n       int32 // bytes of the header that have come
	size    int32 // bytes of the record after its header
	left    int32 // bytes of the record that are still to come
	longest int32 // bytes of the longest record so far
	whole   int64 // bytes of whole records since crypto/tls last returned a byte

	held, kept int64 // what CountTLS has counted
}

const (
	recordHeader = 5 // type, version, length (RFC 8446, 5.1)
	// recordRoom is what crypto/tls adds to the length of a record when it makes room for it.
	recordRoom = 512
	// smallRecord is the length up to which the room for records is not counted: every handshake has records of that size.
	smallRecord = 4 << 10
	// recordCost is the size of the buffer from which crypto/tls writes a record.
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
		// crypto/tls refuses a record that is longer than allowed before it makes room for it: hence the limit on longest.
		t.size = int32(binary.BigEndian.Uint16(t.header[3:]))
		t.left = t.size
		t.longest = max(t.longest, min(t.size, PageSize+2048))
		if t.left == 0 {
			t.n = 0
		}
	}
}

// InRecord reports whether the header of a TLS record has come and its last byte has not. The goroutine that reads calls it.
func (s *Socket) InRecord() bool { return s.input.left > 0 }

// Decrypted notes that crypto/tls has returned bytes of commands, so that no part of a handshake message waits in it. It
// then counts like CountTLS. The goroutine that reads calls it. hot
func (s *Socket) Decrypted() {
	s.input.gave()
	s.CountTLS()
}

// CountTLS counts the memory that the peer's bytes take in crypto/tls. The goroutine that reads calls it before each read
// that waits. Release gives back what is held. hot
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

// gave notes that crypto/tls has returned bytes of commands, so that no part of a handshake message waits in it. hot
func (t *tlsInput) gave() { t.whole = 0 }

// memory returns what crypto/tls holds: held until the rest of the record or message has come, kept as long as the
// connection lives. The bytes.Buffer into which crypto/tls reads has up to twice the room that was asked for. hot
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
