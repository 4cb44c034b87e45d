package backend

import (
	"crypto/tls"
	"errors"

	"dragontls/proxy/netio"
)

// Source is where the bytes of a backend come from: a netio.Socket, or a connection in TLS over one.
type Source interface {
	// Receive reads once, see Conn.Receive. The goroutine that reads calls it.
	Receive() ([]byte, *netio.Chunk, error)
}

// tlsSource is the Source of a connection in TLS. The goroutine that reads owns it.
type tlsSource struct {
	conn   *tls.Conn
	socket *netio.Socket // under conn
	small  []byte
	full   bool // the last read filled small
}

func (s *tlsSource) Receive() ([]byte, *netio.Chunk, error) {
	// crypto/tls wants room before it waits: little of it, and more only for what is there already.
	if s.full {
		b := s.socket.Account().Buffers()
		k := b.GetChunk()
		s.socket.BeforeWait = func() error { return netio.ErrWouldWait }
		n, err := s.conn.Read(k[:])
		s.socket.BeforeWait = nil
		if errors.Is(err, netio.ErrWouldWait) && n > 0 {
			err = nil // crypto/tls looked for the rest of an alert after the last bytes
		}
		if n > 0 {
			s.socket.Account().Hold(netio.ChunkSize) // from here on, as in netio.Socket.Receive
			return k[:n], k, err
		}
		b.PutChunk(k)
		if !errors.Is(err, netio.ErrWouldWait) {
			return nil, nil, err
		}
	}
	if s.small == nil {
		s.small = make([]byte, 512)
	}
	n, err := s.conn.Read(s.small)
	s.full = n == len(s.small)
	return s.small[:n], nil, err
}
