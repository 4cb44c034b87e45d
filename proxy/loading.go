package proxy

import "dragontls/proxy/backend"

// What a client gets from a backend that is loading its data depends on whether the backend has served the session before. If
// not, its client has connected since the backend began to load, and gets the backend's own replies over the session's own
// connection: a direct connection would bring the same, among them what INFO says about loading. A session that was served
// has outlived the process that served it, or is no better off: it ends without a reply, as a direct connection would have
// ended with that process, and its client finds out by connecting again. In mode paired a session ends with its connection, so
// nobody has to ask.

// wasServed reports whether the session has had a connection at a time when the backend was not loading. The session's
// reader calls it.
func (s *session) wasServed() bool { return s.at.whileLoading == backend.LoadingRefused }

// noteServed notes that the session has a connection on which the backend was not loading: from now on wasServed. A session that
// owns its connection from birth is never asked. The session's reader calls it. hot
func (s *session) noteServed() {
	if s.at.whileLoading == backend.LoadingNoted {
		s.at.whileLoading = backend.LoadingRefused
	}
}

// noteOwn calls noteServed if the own connection up is known to have been opened when the backend was not loading.
func (s *session) noteOwn(up *ownConn) {
	if up.Ready {
		s.noteServed()
	}
}
