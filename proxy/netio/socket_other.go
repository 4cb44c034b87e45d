//go:build unix && !linux

package netio

// Readable always reports false here: bytes that have arrived already are taken for bytes that the client sent later.
func (s *Socket) Readable() bool { return false }

// HungUp always reports false here: only keepalive and the write timeout notice that a peer is gone.
func (s *Socket) HungUp() (fin, broken bool) { return false, false }
