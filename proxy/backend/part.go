package backend

import (
	"bytes"
	"sync"
	"time"

	"dragontls/proxy/resp"
)

// maxPartings bounds the connections that wait for the backend to close them, and with them the goroutines.
const maxPartings = 256

// partings are the connections that wait for the backend to close them. Safe for concurrent use.
type partings struct {
	mu sync.Mutex
	// guarded by mu
	conns  map[*Conn]struct{}
	closed bool

	running sync.WaitGroup
}

// Part gives a connection up over which nothing is owed and nothing is half sent. It sends QUIT and returns; the backend is left to
// close the connection first, for Config.PartTimeout at most. The side that closes first keeps the connection's port for a minute
// (TIME_WAIT), and many short sessions would leave this side no port to dial from. The goroutine that reads calls Part, as its last
// use of c.
//
// While a dial would wait for a place, or too many connections part already, Part closes the connection at once. So it does with a
// Unix socket, which has no port.
func (b *Backend) Part(c *Conn) {
	c.Socket.Release()
	if c.Socket.LocalAddr().Network() != "tcp" || b.IsFull() || !b.partings.add(c) {
		c.Close()
		return
	}
	c.Socket.SetReadDeadline(time.Time{})
	limit := time.AfterFunc(b.c.PartTimeout, c.Close) // whatever waits below ends with the socket
	_, err := c.Write(resp.AppendCommand(nil, "QUIT"))
	if err == nil {
		go b.part(c, limit) // ends with the connection, EndPartings waits for it
		return
	}
	b.parted(c, limit)
}

// part waits until the backend has closed c, and then closes it too.
func (b *Backend) part(c *Conn, limit *time.Timer) {
	var dropped [256]byte
	for {
		// What comes is not asked for any more. It is read below the TLS and the account of the connection, whose owner may be gone.
		n, err := c.Socket.Conn.Read(dropped[:])
		// An open transaction may have queued the QUIT, or the user may not run it.
		if refused := c.TLS == nil && !bytes.HasPrefix(dropped[:n], []byte("+OK")); err != nil || refused {
			break
		}
	}
	b.parted(c, limit)
}

func (b *Backend) parted(c *Conn, limit *time.Timer) {
	limit.Stop()
	c.Close()
	b.partings.remove(c)
}

// add takes c in, unless there are too many already.
func (p *partings) add(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= maxPartings {
		return false
	}
	if p.conns == nil {
		p.conns = make(map[*Conn]struct{})
	}
	p.conns[c] = struct{}{}
	p.running.Add(1)
	return true
}

func (p *partings) remove(c *Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	p.running.Done()
}

// EndPartings closes the connections that still wait for the backend to close them, and waits until they are gone. From then on Part
// waits no more.
func (b *Backend) EndPartings() {
	p := &b.partings
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}
