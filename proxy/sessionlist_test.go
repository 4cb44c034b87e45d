package proxy

import (
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// listed is what SessionList says of a client's session.
func (h *harness) listed(w *wire) SessionInfo {
	h.t.Helper()
	for _, info := range h.SessionList() {
		if info.Address == w.LocalAddr().String() {
			return info
		}
	}
	h.t.Fatalf("no session of %s in %v", w.LocalAddr(), h.SessionList())
	return SessionInfo{}
}

func TestSessionListDescribesEachSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		began := time.Now().Add(-time.Second)
		d := dragonflyAt(t, proxytest.Options{})
		j := &judgement{}
		h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = j.recheck })
		web, worker := h.dialAs("web"), h.dialAs("worker")
		for range 3 {
			web.do("$-1\r\n", "GET", "k")
		}
		web.do("+OK\r\n", "CLIENT", "SETINFO", "LIB-NAME", "redis-py")
		web.do("+OK\r\n", "CLIENT", "SETINFO", "LIB-VER", "5.0")
		worker.do("+PONG\r\n", "PING")
		worker.send(cmd("BLPOP", "q", "0"))
		eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
		first, second := h.listed(web), h.listed(worker)
		if first.ID == second.ID || first.ID == 0 {
			t.Errorf("got the ids %d and %d", first.ID, second.ID)
		}
		if first.NotAfter.Before(time.Now()) || first.Since.Before(began) || first.Since.After(time.Now().Add(time.Second)) || first.Serial == "" {
			t.Errorf("got %+v", first)
		}
		first.ID, first.Serial, first.NotAfter, first.Since = 0, "", time.Time{}, time.Time{}
		want := SessionInfo{
			Identity: "web", Subject: "CN=web", Address: web.LocalAddr().String(), Library: "redis-py", LibraryVersion: "5.0",
			TLSVersion: "1.3", Commands: 5, Place: placeOwn, Generation: 7,
		}
		if !m.shared {
			want.Place = placeFromBirth
		}
		if first != want {
			t.Errorf("got  %+v\nwant %+v", first, want)
		}
		if second.InFlight != 1 || second.Commands != 2 || second.Library != "" || second.Identity != "worker" {
			t.Errorf("got %+v, want one command of 2 in flight and no library", second)
		}
		web.Close()
		eventually(t, "it is gone from the list", func() bool { return len(h.SessionList()) == 1 })
	})
}

func TestSessionListNamesTheUser(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{RequirePass: "top", Users: []proxytest.User{{Name: "web", Password: "secret"}}})
		j := &judgement{users: map[string]User{"web": {Name: "web", Password: func() (string, error) { return "secret", nil }}}}
		h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = j.recheck })
		w := h.dialAs("web")
		w.do("+PONG\r\n", "PING")
		if got := h.listed(w); got.User != "web" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestSessionListSaysWhereASessionIs(t *testing.T) {
	t.Parallel()
	h := mode{shared: true}.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), nil)
	w := h.dial()
	wantAt := func(place string) {
		t.Helper()
		if got := h.listed(w).Place; got != place {
			t.Errorf("it is at %q, want %q", got, place)
		}
	}
	h.sessionOf(w)
	wantAt(placeNone)
	w.do("+PONG\r\n", "PING") // proves it over its own connection
	h.pass(stayInterval)
	w.do("$-1\r\n", "GET", "k")
	wantAt(placeLane)
	w.do("*0\r\n", "LRANGE", "l", "0", "-1")
	wantAt(placeUnbounded)
	w.do("+OK\r\n", "SELECT", "1")
	wantAt(placeOwn)
	h.closeUnused(h.sessionOf(w))
	eventually(t, "its own connection is closed", func() bool { return h.listed(w).Place == placeNone })
	w.send(cmd("SUBSCRIBE", "news"))
	w.want("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
	wantAt(placeForLife)
}

// What a client chose is printable and bounded.
func TestSessionListCleansWhatClientsChose(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		b := newLaneBackend(t) // takes any name, as a backend might
		h := m.start(t, b.addr, nil)
		w := h.dialAs("<script>\u202e" + strings.Repeat("x", 40))
		w.do("+OK\r\n", "CLIENT", "SETINFO", "LIB-NAME", "<b>\r\n\x1b[31m\u202e"+strings.Repeat("y", 300))
		w.do("+OK\r\n", "CLIENT", "SETINFO", "LIB-VER", strings.Repeat("9", 65))
		got := h.listed(w)
		if want := "<b>???[31m?" + strings.Repeat("y", 64-13-3) + "..."; got.Library != want {
			t.Errorf("got %q, want %q", got.Library, want)
		}
		if want := strings.Repeat("9", 61) + "..."; got.LibraryVersion != want {
			t.Errorf("got %q, want %q", got.LibraryVersion, want)
		}
		if want := `CN=\<script\>?` + strings.Repeat("x", 40); got.Subject != want {
			t.Errorf("got %q, want %q", got.Subject, want)
		}
	})
}

// The list is made while sessions work and end; the race detector watches.
func TestSessionListDisturbsNobody(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), nil)
		stop := make(chan struct{})
		var lister sync.WaitGroup
		lister.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					h.SessionList()
				}
			}
		})
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for range 3 {
					w := h.dial()
					for range 20 {
						w.do("$-1\r\n", "GET", "k")
						w.do("*0\r\n", "LRANGE", "l", "0", "-1")
					}
					w.do("+OK\r\n", "CLIENT", "SETINFO", "LIB-NAME", "x")
					w.do("+OK\r\n", "QUIT")
					w.wantEnd()
				}
			})
		}
		clients.Wait()
		close(stop)
		lister.Wait()
		h.wantClosed(closeQuit, 12)
	})
}

func TestKillSessionsEndsThoseThatMatch(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		j := &judgement{}
		h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = j.recheck })
		idle, blocked, other := h.dialAs("bad"), h.dialAs("bad"), h.dialAs("good")
		for _, w := range []*wire{idle, blocked, other} {
			w.do("+PONG\r\n", "PING")
		}
		blocked.send(cmd("BLPOP", "q", "0"))
		eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
		bad := func(s SessionInfo) bool { return s.Identity == "bad" }
		if n := h.KillSessions(bad); n != 2 {
			t.Errorf("%d sessions were ended, want 2", n)
		}
		for _, w := range []*wire{idle, blocked} {
			if got := w.wantEnd(); got != "" {
				t.Errorf("got %q before the end", got)
			}
		}
		h.wantClosed(closeKilled, 2)
		other.do("+PONG\r\n", "PING")
		if n := h.KillSessions(bad); n != 0 {
			t.Errorf("%d sessions were ended again", n)
		}
		lines := h.linesWith("message", "session closed by an operator")
		if len(lines) != 2 || lines[0]["client"] != "bad" || lines[0]["reason"] != "killed" || lines[0]["remote"] == "" {
			t.Errorf("got %v", lines)
		}
	})
}
