package proxy

import (
	"crypto/tls"
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Peer is what is known of the client of a session. Without a certificate all of it is zero.
type Peer struct {
	// Anchor names the client CA in which its chain ends. Counted as it is: it must be one of few.
	Anchor string
	// NotBefore and NotAfter bound the validity of its chain. The session ends before NotAfter.
	NotBefore, NotAfter time.Time
	// Generation of what was trusted when the session began.
	Generation uint64
	// Identity is a digest of who the client is; zero: it has shown no certificate.
	Identity [32]byte
	// Name and Serial of its certificate are for people: logs, the audit log, CLIENT LIST.
	Name, Serial string
	// User is whom the session acts as at the backend. nil: BackendConfig.Credentials, or the client authenticates itself.
	User *User
}

// endWindow: a session ends at a random moment this long before its certificate does, or in the last twentieth of
// its validity if that is less, so that clients with certificates of one age do not all come back at once.
const endWindow = time.Minute

// endMoment is when a session with this peer is to end, in unix nanoseconds.
func (p *Peer) endMoment() int64 {
	if p.NotAfter.IsZero() {
		return math.MaxInt64
	}
	window := min(endWindow, p.NotAfter.Sub(p.NotBefore)/20, time.Until(p.NotAfter)) // never in the past
	return p.NotAfter.UnixNano() - rand.Int64N(max(1, int64(window)))
}

// lostTrust names why a client is not trusted any more.
func lostTrust(err error) closeReason {
	switch refusalReason(err) {
	case handshakeRevoked:
		return closeRevoked
	case handshakeExpired:
		return closeExpired
	case handshakeNotAllowed:
		return closeNotAllowed
	case handshakeUnmapped:
		return closeUnmapped
	case handshakeBadUser:
		return closeBadUser
	}
	return closeUntrusted
}

// refusalReason is the reason that an error of who decides about trust gives, or empty.
func refusalReason(err error) string {
	if r, ok := errors.AsType[interface {
		error
		Reason() string
	}](err); ok {
		switch reason := r.Reason(); reason {
		case handshakeRevoked, handshakeNoCRL, handshakeCRLExpired, handshakeExpired, handshakeUnknownCA,
			handshakeNotAllowed, handshakeUnmapped, handshakeBadUser, handshakeBadCert, handshakeChainTooLong, handshakeChainTooBig,
			handshakeChainComplex, handshakeKeyTooBig, handshakeWeakKey:
			return reason
		}
	}
	return ""
}

// verdict is what came of judging one chain of certificates.
type verdict struct {
	peer *Peer
	err  error
}

func (s *Server) judge(cs *tls.ConnectionState) verdict {
	p, err := s.c.Recheck(cs)
	if err == nil && p.User != nil {
		err = p.User.check()
	}
	return verdict{&p, err}
}

// meet judges the client of a session that is registered already: whatever changed since its handshake, either it is
// seen here or the session is seen by Server.Recheck.
func (s *session) meet(cs *tls.ConnectionState) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	if s.server.c.Recheck == nil {
		return
	}
	v := s.server.judge(cs)
	if v.err != nil {
		s.end(lostTrust(v.err))
		return
	}
	s.adopt(nil, v.peer) // if Recheck came first, it knew more
}

// obey ends the session, or takes over what is known of its client now. It returns why the session ends, or empty.
// The caller holds Server.judging.
func (s *session) obey(v verdict) closeReason {
	if v.err != nil {
		reason := lostTrust(v.err)
		s.end(reason)
		return reason
	}
	for {
		last, next := s.peer.Load(), v.peer
		if last != nil && !sameUser(last.User, next.User) {
			s.end(closeUserChanged)
			return closeUserChanged
		}
		if last != nil && last.Generation != next.Generation {
			own := *next
			own.Generation = last.Generation // that of its handshake
			next = &own
		}
		if last != nil && *last == *next || s.adopt(last, next) {
			return ""
		}
	}
}

// adopt replaces what is known of the client. false: it is not last any more.
func (s *session) adopt(last, next *Peer) bool {
	s.pump.mu.Lock()
	defer s.pump.mu.Unlock()
	if s.peer.Load() != last {
		return false
	}
	s.peer.Store(next)
	s.gen.Add(1)
	if last == nil || !last.NotAfter.Equal(next.NotAfter) {
		end := next.endMoment()
		s.ends.Store(end)
		s.server.firstEnd.lower(end)
	}
	return true
}

// abortLater gives sessions that were ended the time for a goodbye, and resets who did not take it.
func (s *Server) abortLater(ended []*session) {
	if len(ended) == 0 {
		return
	}
	time.AfterFunc(s.c.goodbyeTimeout, func() {
		for _, n := range ended {
			n.client.sock.Abort() // no-op for those that are closed
		}
	})
}

// closeExpired ends sessions whose certificate is about to end: between two commands if it can, at the end of the
// certificate otherwise.
func (s *Server) closeExpired() {
	now := time.Now().UnixNano()
	if now < s.firstEnd.Load() {
		return
	}
	s.judging.Lock()
	defer s.judging.Unlock()
	s.firstEnd.Store(math.MaxInt64)
	var ended []*session
	s.each(func(n *session) {
		if end := n.ends.Load(); now < end {
			s.firstEnd.lower(end)
		} else if s.overdue(n, now) {
			ended = append(ended, n)
		}
	})
	s.abortLater(ended)
}

// overdue ends a session whose time has come. false: it was ended before, goes on for a moment, or until another end.
func (s *Server) overdue(n *session, now int64) bool {
	if n.ended() {
		return false
	}
	// A CA may have been renewed meanwhile, and the chain with it.
	cs := n.client.conn.ConnectionState()
	if n.obey(s.judge(&cs)) != "" {
		return true
	}
	end := n.ends.Load()
	if now < end || !n.idle() && !n.waiting() && n.owing() {
		s.firstEnd.lower(end)
		return false
	}
	n.end(closeExpired)
	return true
}

// moment is a time in unix nanoseconds.
type moment struct{ atomic.Int64 }

func (m *moment) lower(to int64) {
	for {
		old := m.Load()
		if to >= old || m.CompareAndSwap(old, to) {
			return
		}
	}
}
