package main

import (
	"crypto/tls"

	"dragontls/certs"
	"dragontls/proxy"
)

// recheck judges the client of a session by what is trusted now.
func (s *service) recheck(cs *tls.ConnectionState) (proxy.Peer, error) {
	now := s.store.Snapshot()
	p, err := now.Recheck(cs)
	return proxy.Peer{Anchor: p.Anchor, NotBefore: p.NotBefore, NotAfter: p.NotAfter, Generation: now.TrustGeneration}, err
}

// reloaded has live sessions judged anew where trust has changed.
func (s *service) reloaded(now *certs.Snapshot) {
	if s.judged.Swap(now.TrustGeneration) != now.TrustGeneration {
		s.server.Recheck()
	}
}
