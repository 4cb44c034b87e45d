package proxy

import (
	"crypto/tls"
	"runtime"
	"time"
)

// maxShownLibrary is how many bytes of the name and of the version of its library a client can put into a SessionInfo.
const maxShownLibrary = 64

// listedAtOnce is how many sessions are described before other goroutines get their turn: traffic does not wait for a long list.
const listedAtOnce = 128

// SessionInfo describes one open session for people. Its texts are printable and bounded, but clients and certificates chose some of them:
// they prove nothing, and a page has to escape them.
type SessionInfo struct {
	// ID is unique among the sessions of one Server, and grows.
	ID uint64
	// Identity is the Name of the Peer, Subject the distinguished name of its certificate, and Serial the serial number. They are empty
	// for a client without a certificate.
	Identity, Subject, Serial string
	// NotAfter is the end of its chain's validity, or zero.
	NotAfter time.Time
	// Address is the address and port from which the client has connected.
	Address string
	// User is the backend user of the client's own as whom the session acts, or empty where it acts as all others do.
	User string
	// Library and LibraryVersion are what the backend has accepted by CLIENT SETINFO.
	Library, LibraryVersion string
	TLSVersion              string // 1.2 or 1.3
	Since                   time.Time
	Commands                uint64 // passed on or answered here
	InFlight                int    // commands to which the backend owes a reply, as far as replies are counted
	Place                   string // one of Places
	Generation              uint64 // of what was trusted when the session began
}

// The values of SessionInfo.Place: over what the session's last commands went, or why it cannot leave its own connection.
const (
	placeNone      = "none" // it has sent nothing yet, or its own connection was closed since it was idle
	placeLane      = "lane"
	placeUnbounded = "unbounded lane"
	placeOwn       = "own"
	placeForLife   = "own for life"
	placeFromBirth = "own from birth"
)

// Places are the values of SessionInfo.Place.
func Places() []string {
	return []string{placeNone, placeLane, placeUnbounded, placeOwn, placeForLife, placeFromBirth}
}

// SessionList describes the open sessions, in no order. It may be called at any time: it takes Server.mu only to list them, and the locks
// of one session after the other, each for a few instructions.
func (s *Server) SessionList() []SessionInfo {
	d := s.newDescriber()
	list := make([]SessionInfo, 0, s.open())
	s.each(func(n *session) {
		if !n.ended() {
			list = append(list, d.describe(n))
		}
		if len(list)%listedAtOnce == 0 {
			runtime.Gosched()
		}
	})
	return list
}

// KillSessions ends the sessions that match, and returns how many. match must not call the Server. Their clients get a close_notify, and a
// reset if their connections are not closed within goodbyeTimeout.
func (s *Server) KillSessions(match func(SessionInfo) bool) int {
	d := s.newDescriber()
	var killed []*session
	s.each(func(n *session) {
		if n.ended() || !match(d.describe(n)) {
			return
		}
		if n.end(closeKilled); n.reason != closeKilled {
			return // it has just ended by itself
		}
		e := s.log.Info().Str("reason", string(closeKilled))
		n.describe(e)
		e.Msg("session closed by an operator")
		killed = append(killed, n)
	})
	s.abortLater(killed)
	return len(killed)
}

// describer describes sessions for one list.
type describer struct {
	began    time.Time         // when the clock of Server.now began
	subjects map[string]string // in words, by their DER: clients of one identity have the same
}

func (s *Server) newDescriber() *describer {
	began := time.Now().Add(-s.now().Sub(0)).Round(time.Millisecond)
	return &describer{began: began, subjects: make(map[string]string)}
}

func (d *describer) describe(n *session) SessionInfo {
	cs := n.client.conn.ConnectionState()
	info := SessionInfo{
		ID: n.id, Address: n.client.sock.RemoteAddr().String(), TLSVersion: versionName(cs.Version),
		Since: d.began.Add(n.begun.Sub(0)), Commands: n.client.commands.Load(), Subject: d.subject(&cs),
	}
	if p := n.peer.Load(); p != nil {
		info.Identity, info.Serial, info.NotAfter, info.Generation = p.Name, p.Serial, p.NotAfter, p.Generation
		if p.User != nil {
			info.User = p.User.Name
		}
	}
	n.queue.mu.Lock()
	info.InFlight = n.queue.owed
	n.queue.mu.Unlock()
	n.pump.mu.Lock()
	library, version, hasOwn := n.state.LibraryName, n.state.LibraryVersion, n.pump.up != nil
	n.pump.mu.Unlock()
	info.Library, info.LibraryVersion = cleaned(library, maxShownLibrary), cleaned(version, maxShownLibrary)
	info.Place = n.place(hasOwn)
	return info
}

func (d *describer) subject(cs *tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return ""
	}
	leaf := cs.PeerCertificates[0]
	text, known := d.subjects[string(leaf.RawSubject)]
	if !known {
		text = shownText(leaf.Subject.String())
		d.subjects[string(leaf.RawSubject)] = text
	}
	return text
}

// place returns one of Places. hasOwn means that the session has its own connection now.
func (s *session) place(hasOwn bool) string {
	switch s.tie.Load() {
	case ownFromBirth:
		return placeFromBirth
	case ownForLife:
		return placeForLife
	}
	switch routeKind(s.goesOver.Load()) {
	case routeLane:
		return placeLane
	case routeUnbounded:
		return placeUnbounded
	case routeOwn:
		if hasOwn {
			return placeOwn
		}
	}
	return placeNone
}
