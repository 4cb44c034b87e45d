package proxy

import (
	"crypto/tls"
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Peer is what is known of the client of a session. It is zero for a client without a certificate.
type Peer struct {
	// Anchor names the client CA in which its chain ends. It is the label of a metric as it is, so it must be one of few.
	Anchor string
	// NotBefore and NotAfter bound the validity of its chain. The session ends by NotAfter.
	NotBefore, NotAfter time.Time
	// Generation is that of what was trusted when the session began.
	Generation uint64
	// Identity is a digest that identifies the client. It is zero if the client has shown no certificate.
	Identity [32]byte
	// Name and Serial describe its certificate for people: in logs, the audit log and CLIENT LIST.
	Name, Serial string
	// User is the backend user as whom the session acts. If it is nil, BackendConfig.Credentials decides, or without those the
	// client authenticates itself.
	User *User
}

// endWindow is the last part of a certificate's validity, or its last twentieth if that is shorter: a session ends at a
// random moment within it, so that clients whose certificates end at the same time do not all reconnect at once.
const endWindow = time.Minute

// endMoment draws the time at which a session with this peer is to end, in unix nanoseconds.
func (p *Peer) endMoment() int64 {
	if p.NotAfter.IsZero() {
		return math.MaxInt64
	}
	window := min(endWindow, p.NotAfter.Sub(p.NotBefore)/20, time.Until(p.NotAfter)) // never in the past
	return p.NotAfter.UnixNano() - rand.Int64N(max(1, int64(window)))
}

// lostTrust returns the close reason for a client that is no longer trusted because of err.
func lostTrust(err error) closeReason {
	switch refusalReason(err) {
	case handshakeRevoked:
		return closeRevoked
	case handshakeExpired:
		return closeExpired
	case handshakeNotYetValid:
		return closeNotYetValid
	case handshakeNotAllowed:
		return closeNotAllowed
	case handshakeUnmapped:
		return closeUnmapped
	case handshakeBadUser:
		return closeBadUser
	}
	return closeUntrusted
}

// refusalReason returns the reason that err gives, if it has a method Reason and the reason is a known one, or an empty
// string.
func refusalReason(err error) string {
	if r, ok := errors.AsType[interface {
		error
		Reason() string
	}](err); ok {
		switch reason := r.Reason(); reason {
		case handshakeRevoked, handshakeNoCRL, handshakeCRLExpired, handshakeCRLNotYetValid, handshakeExpired, handshakeNotYetValid, handshakeUnknownCA,
			handshakeNotAllowed, handshakeUnmapped, handshakeBadUser, handshakeSignature, handshakeBadCert, handshakeChainTooLong, handshakeChainTooBig,
			handshakeChainComplex, handshakeKeyTooBig, handshakeWeakKey:
			return reason
		}
	}
	return ""
}

// verdict is the result of judging one chain of certificates: the peer, or why it is not trusted.
type verdict struct {
	peer *Peer
	err  error
}

// judge asks Config.Recheck about a chain, and checks the user to whom it maps.
func (s *Server) judge(cs *tls.ConnectionState) verdict {
	p, err := s.c.Recheck(cs)
	if err == nil && p.User != nil {
		err = p.User.check()
	}
	return verdict{&p, err}
}

// meet judges the client of a new session and ends the session if the client is not trusted. The session must be registered
// before: then a change of what is trusted since the handshake is seen here, or Server.Recheck sees the session.
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
	s.adopt(nil, v.peer) // fails if Recheck came first, whose verdict is newer
}

// obey carries out a verdict: it ends the session and returns why, or adopts what is now known of the client and returns an
// empty reason. A client that now maps to another user is closed. The caller must hold Server.judging.
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
			own.Generation = last.Generation // the session keeps the generation of its handshake
			next = &own
		}
		if last != nil && *last == *next || s.adopt(last, next) {
			return ""
		}
	}
}

// adopt replaces what is known of the client, which must be last. It returns false, and changes nothing, if it no longer is.
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

// abortLater gives sessions that were ended goodbyeTimeout to close, and then resets the connections of those that have not.
func (s *Server) abortLater(ended []*session) {
	if len(ended) == 0 {
		return
	}
	time.AfterFunc(s.c.goodbyeTimeout, func() {
		for _, n := range ended {
			n.client.sock.Abort() // does nothing to a closed socket
		}
	})
}

// closeExpired ends sessions whose certificate is about to end: between two commands if possible, and otherwise at the end
// of the certificate. The sweeper calls it.
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

// overdue ends a session whose time has come, and reports whether it did. It returns false if the session had ended before,
// is in the middle of commands and goes on for a moment, or has a later end now. The caller must hold Server.judging.
func (s *Server) overdue(n *session, now int64) bool {
	if n.ended() {
		return false
	}
	// A CA may have been renewed meanwhile, so that the chain is valid for longer.
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

// lower sets the time to an earlier one; it leaves an earlier time as it is.
func (m *moment) lower(to int64) {
	for {
		old := m.Load()
		if to >= old || m.CompareAndSwap(old, to) {
			return
		}
	}
}
