//go:build unix && !linux

package netio

// Readable knows nothing here: what comes next is taken for what comes after.
func (s *Socket) Readable() bool { return false }

// HungUp knows nothing here; keepalive and the write timeout have to do.
func (s *Socket) HungUp() (fin, broken bool) { return false, false }
