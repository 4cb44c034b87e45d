package admin

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// maxConnections bounds descriptors; it fits the 64 that config sets aside.
	maxConnections = 32
	// maxRemote of them may come from other hosts: the probes on this one always find a place.
	maxRemote = 24
	// tellInterval is the least time between two log lines about full places.
	tellInterval = 10 * time.Second
)

// placesListener accepts always. Where a newcomer finds all places taken, it closes the oldest connection that has not
// sent a whole request or, where those are few, the oldest of all. Connections of this host lose their places last, and to one
// another only. One goroutine calls Accept; the rest may be called concurrently.
type placesListener struct {
	net.Listener
	log zerolog.Logger

	closed uint64    // connections that lost their places since the last line of the log; Accept's
	next   time.Time // no such line before; Accept's

	mu sync.Mutex
	// guarded by mu
	open []*placedConn // oldest first
}

// placedConn is a connection with a place.
type placedConn struct {
	net.Conn
	listener *placesListener
	local    bool // its peer is on this host
	asked    bool // a whole request is in; guarded by listener.mu
}

func (l *placesListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &placedConn{Conn: conn, listener: l, local: onThisHost(conn.RemoteAddr())}
	if loser := l.add(c); loser != nil {
		loser.Close()
		l.tell()
	}
	return c, nil
}

// onThisHost reports whether a peer is certainly on this host. A Unix socket's is.
func onThisHost(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

// add gives c a place and returns the connection that lost its place to c, or nil. It returns c itself, without a place, if
// all places belong to connections of this host and c comes from another.
func (l *placesListener) add(c *placedConn) *placedConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	remote := 0
	for _, o := range l.open {
		if !o.local {
			remote++
		}
	}
	if len(l.open) >= maxConnections && !c.local && remote == 0 {
		return c
	}
	var loser *placedConn
	if len(l.open) >= maxConnections || !c.local && remote >= maxRemote {
		loser = l.loserLocked(remote > 0)
		l.removeLocked(loser)
	}
	l.open = append(l.open, c)
	return loser
}

// loserLocked chooses among the connections of other hosts or, without any, among all. Newcomers keep a quarter of the
// places to ask. Otherwise the oldest of all is closed: most likely its client is not reading the answer.
func (l *placesListener) loserLocked(remote bool) *placedConn {
	var oldest, oldestSilent *placedConn
	all, silent := 0, 0
	for _, o := range l.open {
		if remote && o.local {
			continue
		}
		all++
		oldest = cmp.Or(oldest, o)
		if !o.asked {
			silent++
			oldestSilent = cmp.Or(oldestSilent, o)
		}
	}
	if 4*silent > all {
		return oldestSilent
	}
	return oldest
}

func (l *placesListener) removeLocked(c *placedConn) {
	l.open = slices.DeleteFunc(l.open, func(o *placedConn) bool { return o == c })
}

// tell logs that the places are full: at once, and then how often since.
func (l *placesListener) tell() {
	l.closed++
	if now := time.Now(); now.After(l.next) {
		l.log.Warn().Uint64("closed", l.closed).Int("max_connections", maxConnections).
			Msg("all places of the admin listener were taken: the oldest connections were closed")
		l.closed, l.next = 0, now.Add(tellInterval)
	}
}

func (c *placedConn) Close() error {
	c.listener.mu.Lock()
	c.listener.removeLocked(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

type placeKey struct{}

// withPlace lets noteAsked find the connection of a request.
func withPlace(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, placeKey{}, c)
}

// noteAsked notes that a whole request is in.
func noteAsked(r *http.Request) {
	if c, ok := r.Context().Value(placeKey{}).(*placedConn); ok {
		c.listener.mu.Lock()
		c.asked = true
		c.listener.mu.Unlock()
	}
}
