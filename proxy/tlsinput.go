package proxy

import (
	"encoding/binary"

	"dragontls/proxy/netio"
)

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

	held, kept int64 // as memory said when it was counted last, see countTLS
}

const (
	recordHeader = 5 // type, version, length (RFC 8446, 5.1)
	// recordRoom is what crypto/tls adds to the length of a record when it makes room for it.
	recordRoom = 512
	// smallRecord: the room for such records is in sessionCost, as each handshake has some.
	smallRecord = 4 << 10
	// recordCost is the buffer that crypto/tls writes a record from.
	recordCost = netio.PageSize + recordRoom
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
		t.longest = max(t.longest, min(t.size, netio.PageSize+2048))
		if t.left == 0 {
			t.n = 0
		}
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
