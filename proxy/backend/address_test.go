package backend

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

func TestNameIsResolvedOnceASecond(t *testing.T) {
	n := proxytest.NewResolver("127.0.0.1")
	a := newAddress(&Config{ResolveInterval: time.Hour, Lookup: n.Lookup})
	d := &net.Dialer{}
	target := net.JoinHostPort("backend.test", "1") // nobody listens there
	for range 50 {
		if _, _, err := a.dial(t.Context(), d, "tcp", target); err == nil {
			t.Fatal("somebody listens at port 1")
		}
	}
	if got := n.Asked(); got != 1 {
		t.Errorf("asked %d times within a moment", got)
	}
	a.mu.Lock()
	a.resolved = a.resolved.Add(-time.Hour)
	a.mu.Unlock()
	a.dial(t.Context(), d, "tcp", target)
	if got := n.Asked(); got != 2 {
		t.Errorf("asked %d times, want once more", got)
	}
	none := errors.New("no such host")
	n.Fail(none)
	a.mu.Lock()
	a.resolved = time.Time{}
	a.mu.Unlock()
	if _, _, err := a.dial(t.Context(), d, "tcp", target); !errors.Is(err, none) {
		t.Errorf("got %v", err)
	}
}

// Who had begun to connect to the last address before the backend moved does not lead everybody back there.
func TestBackendDoesNotMoveBackForWhoConnectedBefore(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(listenOnTwo(t))
	n := proxytest.NewResolver("127.0.0.1")
	a := newAddress(&Config{ResolveInterval: time.Hour, Lookup: n.Lookup, Moved: func(Move) {}})
	target := net.JoinHostPort("backend.test", port)
	dial := func(d *net.Dialer) uint64 {
		t.Helper()
		c, at, err := a.dial(t.Context(), d, "tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return at
	}
	dial(&net.Dialer{})
	stale := dial(&net.Dialer{Control: func(string, string, syscall.RawConn) error {
		n.Set("127.0.0.2")
		a.mu.Lock()
		a.resolved, a.doubted = time.Time{}, true
		a.mu.Unlock()
		if at := dial(&net.Dialer{}); at != 1 {
			t.Errorf("moved %d times, want once", at)
		}
		return nil
	}})
	if stale != 0 || a.moves != 1 || !strings.HasPrefix(a.current, "127.0.0.2") {
		t.Errorf("connection after %d moves; after %d the backend is at %s", stale, a.moves, a.current)
	}
}
