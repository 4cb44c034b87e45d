package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"runtime"
	"sync"
)

// aloneUpTo is how many chains one goroutine judges: for so few, others would only start when it is done.
const aloneUpTo = 64

// class is the sessions whose clients have shown the same chain: one verdict holds for all of them.
type class struct {
	state    tls.ConnectionState
	sessions []*session
}

// Recheck judges the client of every session again, each distinct chain once, and ends each session that is no longer
// trusted as soon as that is known. The caller must call it after every change of what is trusted. It calls Config.Recheck
// from up to GOMAXPROCS goroutines.
func (s *Server) Recheck() {
	if s.c.Recheck == nil {
		return
	}
	s.judging.Lock()
	defer s.judging.Unlock()
	classes, sessions := s.classes()
	next := make(chan *class)
	workers := 1
	if len(classes) > aloneUpTo {
		workers = runtime.GOMAXPROCS(0)
	}
	lost := make([]int, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() { // ends when next is closed
			for c := range next {
				lost[i] += s.judgeClass(c)
			}
		})
	}
	for _, c := range classes {
		next <- c
	}
	close(next)
	all.Wait()
	closed := 0
	for _, n := range lost {
		closed += n
	}
	s.log.Info().Int("sessions", sessions).Int("chains", len(classes)).Int("closed", closed).Msg("live sessions judged again")
}

// classes groups the sessions by the chain that their clients have shown.
func (s *Server) classes() (all map[[32]byte]*class, sessions int) {
	all = make(map[[32]byte]*class)
	s.each(func(n *session) {
		sessions++
		cs := n.client.conn.ConnectionState()
		key := chainKey(&cs)
		c := all[key]
		if c == nil {
			c = &class{state: cs}
			all[key] = c
		}
		c.sessions = append(c.sessions, n)
	})
	return all, sessions
}

// judgeClass judges a class and returns how many sessions it ended. A panic ends all its sessions, since their clients are
// not known to be trusted.
func (s *Server) judgeClass(c *class) (closed int) {
	defer func() {
		if v := recover(); v != nil {
			for _, n := range c.sessions {
				n.panicked(v)
			}
		}
	}()
	v := s.judge(&c.state)
	var lost []*session
	for _, n := range c.sessions {
		if n.ended() {
			continue
		}
		if reason := n.obey(v); reason != "" {
			n.event(s.log.Info()).Err(v.err).Str("reason", string(reason)).Msg("session closed: its client is no longer accepted as it was")
			lost = append(lost, n)
		}
	}
	s.abortLater(lost)
	return len(lost)
}

// chainKey returns a digest of the certificates that a client has shown, which are all that it is judged by.
func chainKey(cs *tls.ConnectionState) [32]byte {
	h := sha256.New()
	for _, cert := range cs.PeerCertificates {
		var size [8]byte
		h.Write(binary.BigEndian.AppendUint64(size[:0], uint64(len(cert.Raw))))
		h.Write(cert.Raw)
	}
	return [32]byte(h.Sum(nil))
}
