package certs

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"time"
)

// chainEnd begins what a ticket says of its client's chain; a time in Unix seconds
// follows.
const chainEnd = "dragontls chain ends "

// wrapSession makes a ticket that ends with the client's chain. A client that
// comes back later with it makes a full handshake, and may show a renewed chain:
// verifyConnection could only refuse it. crypto/tls itself looks at the leaf only.
func (s *Snapshot) wrapSession(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
	p, _, err := s.judge(cs.PeerCertificates, true)
	if err != nil {
		return nil, err
	}
	if !p.NotAfter.IsZero() {
		ss.Extra = append(ss.Extra, binary.BigEndian.AppendUint64([]byte(chainEnd), uint64(p.NotAfter.Unix())))
	}
	return s.config.EncryptTicket(cs, ss)
}

func (s *Snapshot) unwrapSession(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	ss, err := s.config.DecryptTicket(ticket, cs)
	if err != nil || ss == nil || ended(ss, s.opts.clock()) {
		return nil, err
	}
	return ss, nil
}

// ended reports whether the chain that a ticket was made for is over.
func ended(ss *tls.SessionState, now time.Time) bool {
	for _, extra := range ss.Extra {
		if end, ok := bytes.CutPrefix(extra, []byte(chainEnd)); ok && len(end) == 8 {
			return now.After(time.Unix(int64(binary.BigEndian.Uint64(end)), 0))
		}
	}
	return false
}
