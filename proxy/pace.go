package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/netio"
)

// pace is how fast backend connections may be opened: burst of them at once, and one more every so often.
type pace struct {
	burst int
	every time.Duration
}

// A connection that is closed leaves its local port unusable for a minute (TIME_WAIT), and Linux has 28,232 ports for one
// backend address, which is 470 connections a second for all clients together. So one identity, with its own connections and
// its lanes, must stay well below that. A session without a token waits for one: nothing is refused.
var (
	// sessionPace is for the own connections of one session after its first one, which comes with a handshake that costs the
	// client more. An honest client needs another one after 5 s without use, after RESET, and after an error to a
	// command that changes its state: seldom more than once a second, and a pool that RESETs now and then has a burst.
	sessionPace = pace{burst: 64, every: 40 * time.Millisecond}
	// identityPace is for the same connections of all sessions of an identity: 1,000 sessions that each need one every 5 s.
	identityPace = pace{burst: 2048, every: 5 * time.Millisecond}
	// lanePace is for the lanes of an identity, so that own connections never make lanes wait: four each in 16
	// databases, of both kinds, at once.
	lanePace = pace{burst: 128, every: 50 * time.Millisecond}
)

func (p *pace) setDefault(d pace) {
	if p.burst == 0 {
		*p = d
	}
}

// bucket holds tokens at a pace. Safe for concurrent use; the zero value is full.
type bucket struct {
	mu   sync.Mutex
	full int64 // see Server.now: the bucket is full from then on. Guarded by mu
}

// take takes a token and returns 0, or returns the nanoseconds until there is one.
func (b *bucket) take(now int64, p pace) (wait int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	full := max(b.full, now)
	if wait := full - now - int64(p.every)*int64(p.burst-1); wait > 0 {
		return wait
	}
	b.full = full + int64(p.every)
	return 0
}

// isFull reports whether the bucket is like a new one.
func (b *bucket) isFull(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.full <= now
}

// await takes a token, and waits until there is one. It returns false if done was closed first.
func (b *bucket) await(s *Server, p pace, done <-chan struct{}) bool {
	for {
		wait := b.take(s.now(), p)
		if wait <= 0 {
			return true
		}
		t := time.NewTimer(time.Duration(wait))
		select {
		case <-t.C:
		case <-done:
			t.Stop()
			return false
		}
	}
}

// line is a bucket whose tokens are given out in turn to those who wait.
type line struct {
	bucket
	first chan struct{} // has room for the caller whose turn is next; the other callers wait to send to it
}

// try takes a token if there is one and nobody stands in the line for it.
func (l *line) try(s *Server, p pace) bool {
	return len(l.first) == 0 && l.take(s.now(), p) <= 0
}

func (l *line) await(s *Server, p pace, done <-chan struct{}) bool {
	select {
	case l.first <- struct{}{}:
	case <-done:
		return false
	}
	defer func() { <-l.first }()
	return l.bucket.await(s, p, done)
}

// identityDials are the tokens of one identity. Of sessions that have shown no certificate, those of one address are one
// identity here, see session.quotaKey.
type identityDials struct {
	own, lanes line
	told       atomic.Bool // that somebody waits
}

// noteWait counts a wait for a token, and says once that an identity's sessions wait until they have long not had to.
func (i *identityDials) noteWait(s *Server, client string) {
	s.backend.Count("paced")
	if !i.told.Swap(true) {
		s.log.Warn().Str("client", client).Msg("a client needs new backend connections too fast: its commands wait for them")
	}
}

// dialPaces has the tokens of each identity that has lately dialled. Safe for concurrent use.
type dialPaces struct {
	mu sync.Mutex
	of map[netio.QuotaKey]*identityDials // guarded by mu
}

func (d *dialPaces) get(key netio.QuotaKey) *identityDials {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.of[key]
	if i == nil {
		i = &identityDials{own: line{first: make(chan struct{}, 1)}, lanes: line{first: make(chan struct{}, 1)}}
		if d.of == nil {
			d.of = make(map[netio.QuotaKey]*identityDials)
		}
		d.of[key] = i
	}
	return i
}

// tidy forgets identities that could get all their tokens. Whoever has just got one of them takes a token that nobody
// counts, once.
func (d *dialPaces) tidy(now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, i := range d.of {
		if i.own.isFull(now) && i.lanes.isFull(now) {
			delete(d.of, key)
		}
	}
}

// awaitDial waits until the session may dial another backend connection of its own. The first one is free. The backend reader
// calls it, and holds no lock and no place among BACKEND_MAX_CONNECTIONS meanwhile. waited is false where there was no need
// to; ok is false where the session has ended.
func (s *session) awaitDial() (waited, ok bool) {
	p := &s.pump
	p.mu.Lock()
	first := !p.dialled
	p.mu.Unlock()
	if first {
		return false, true
	}
	server := s.server
	c := &server.c
	name := ""
	if peer := s.peer.Load(); peer != nil {
		name = peer.Name
	}
	dials := server.dialPaces.get(s.quotaKey())
	if p.dials == nil {
		p.dials = new(bucket)
	}
	mine := p.dials.take(server.now(), c.sessionPace) <= 0
	if mine && dials.own.try(server, c.identityPace) {
		return false, true
	}
	dials.noteWait(server, name)
	over := make(chan struct{})
	defer close(over)
	go s.watchUntil(over) // ends with the wait; nobody waits for it
	return true, (mine || p.dials.await(server, c.sessionPace, s.done)) && dials.own.await(server, c.identityPace, s.done)
}

// watchUntil notices a client that vanishes before over is closed, and ends the session of one that sends no more once it has
// waited as long as it would for a silent backend.
func (s *session) watchUntil(over <-chan struct{}) {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	for silent := time.Duration(0); ; {
		select {
		case <-over:
			return
		case <-s.done:
			return
		case <-t.C:
		}
		fin, ended := s.lookAtClient()
		if ended {
			return
		}
		if fin {
			silent += watchInterval
		}
		if silent > s.server.c.eofTimeout {
			s.end(closeClient)
			return
		}
	}
}

// lookAtClient reports whether the client sends no more. It ends the session of a client that has reset its connection, and
// of one that sends no more while a command of it waits for others, so that no element is popped for a client that is gone;
// then ended is true. A subscriber that sends no more goes on: what it sent before is still to be answered.
func (s *session) lookAtClient() (fin, ended bool) {
	fin, broken := s.client.sock.HungUp()
	switch {
	case broken:
		s.kill(closeClientError)
	case fin && s.blocked():
		s.end(closeClient)
	default:
		return fin, false
	}
	return fin, true
}
