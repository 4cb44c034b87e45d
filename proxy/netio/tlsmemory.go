package netio

// InRecord reports whether the header of a TLS record has come and its last byte has not. The goroutine that reads calls it.
func (s *Socket) InRecord() bool { return s.input.left > 0 }

// Decrypted notes that crypto/tls has returned bytes of commands, so that no part of a handshake message waits in it. It
// then counts like CountTLS. The goroutine that reads calls it. hot
func (s *Socket) Decrypted() {
	t := &s.input
	t.whole = 0
	if max(int64(t.longest), t.held) > smallRecord {
		s.countTLS()
	}
}

// CountTLS counts the memory that the peer's bytes take in crypto/tls. The goroutine that reads calls it before each read
// that waits. Release gives back what is held. hot
func (s *Socket) CountTLS() {
	if t := &s.input; max(int64(t.longest), t.whole) > smallRecord {
		s.countTLS()
	}
}

// countTLS is the part of CountTLS and Decrypted for a peer whose records or handshake messages are not all small.
func (s *Socket) countTLS() {
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
