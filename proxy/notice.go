package proxy

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"
)

// Notice tells of a client that was refused, or of a session that was closed for another reason than that its client, or the operator, was
// done with it. Its texts are printable and bounded, but the client may have chosen them.
type Notice struct {
	Refused bool   // there was no session
	Reason  string // as Stats counts it, in Handshakes or else in SessionsClosed
	From    netip.Addr
	// Client is the Name of the Peer, or else the subject of the certificate that was shown.
	Client, Serial string
	Error          string // of a handshake
}

// isQuiet reports whether a session or handshake that ends for this reason ends in good order, or for a reason that port scans and health
// checks have too.
func isQuiet(reason string) bool {
	switch reason {
	case string(closeClient), string(closeQuit), string(closeIdle), string(closeDrain), string(closeShutdown), handshakeClosed:
		return true
	}
	return false
}

// clientIP returns the address without the port, or the zero Addr if a is none of TCP.
func clientIP(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// notify tells Config.Notice what became of the handshake, or of a session that never began (closed), and of whose it was. err may be nil.
func (h *handshake) notify(reason string, closed bool, err error, st *tls.ConnectionState) {
	tell := h.server.c.Notice
	if tell == nil || isQuiet(reason) {
		return
	}
	n := Notice{Refused: !closed, Reason: reason, From: clientIP(h.sock.RemoteAddr())}
	if cert := shownCertificate(err, st); cert != nil {
		serial := cert.SerialNumber.Text(16)
		n.Client, n.Serial = shownText(cert.Subject.String()), serial[:min(len(serial), maxShownSerial)]
	}
	if err != nil {
		n.Error = cleaned(withoutNumbers(err.Error()), maxShownName)
	}
	tell(n)
}

// notifyEnd tells Config.Notice why the session has ended.
func (s *session) notifyEnd() {
	tell := s.server.c.Notice
	if tell == nil || isQuiet(string(s.reason)) {
		return
	}
	n := Notice{Reason: string(s.reason), From: clientIP(s.client.sock.RemoteAddr())}
	if p := s.peer.Load(); p != nil {
		n.Client, n.Serial = p.Name, p.Serial
	}
	tell(n)
}

// BackendInfo says where the backend is, and how it does.
type BackendInfo struct {
	URL     string // without user and password
	Address string // where the name in the URL leads to now; the same, if it is no name
	Up      bool
	Since   time.Time     // when Up last changed; zero before the first probe has come to an end
	Ping    time.Duration // how long the last PING of the prober took; 0 before the first
	Lanes   int
	Own     int // connections that are one session's own
}

// Backend may be called at any time.
func (s *Server) Backend() BackendInfo {
	b, st := s.backend, s.backend.Stats()
	info := BackendInfo{URL: b.URL(), Address: b.CurrentAddress(), Up: st.Up, Lanes: s.lanes.Count()}
	info.Since, info.Ping = b.UpSince()
	info.Own = max(0, st.Connections-info.Lanes)
	return info
}
