package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// A session of BACKEND_MODE=paired has one connection. If that cannot be had, the session ends, as it would with a direct
// connection: it does not go on with another one.
func TestDialThatFailedIsFinalForASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	addr := reserve(t, "127.0.0.1")[0]
	h := mode{name: "paired"}.start(t, addr, soonUnavailable)
	w := h.dialAs("web")
	w.send(cmd("AUTH", "x"))
	if got, err := w.r.ReadString('\n'); err != nil || !strings.HasPrefix(got, "-") {
		t.Fatalf("AUTH is answered %q, %v", got, err)
	}
	b := newLaneBackendOn(t, addr)
	w.send(cmd("GET", "k"))
	w.endsUnanswered()
	if n := len(b.connsWith(false, "GET")); n != 0 {
		t.Errorf("%d connections got the GET", n)
	}
}

// A client that connects while nobody listens at the backend's address is closed at once, as its connection would be refused directly.
// As soon as the backend listens, the next client is served.
func TestClientThatConnectsToARefusingBackendDoesNotWait(t *testing.T) {
	t.Parallel()
	addr := reserve(t, "127.0.0.1")[0]
	h := mode{name: "paired"}.start(t, addr, func(c *Config) { c.unavailableTimeout = time.Hour })
	var clients sync.WaitGroup
	for range 20 {
		w := h.dial()
		clients.Go(func() {
			w.send(cmd("PING") + cmd("GET", "k"))
			w.endsUnanswered()
		})
	}
	clients.Wait()
	h.wantClosed(closeUnavailable, 20)
	newLaneBackendOn(t, addr)
	for served := false; !served; { // a dial that was refused a moment ago speaks for those that follow it
		w := h.dial()
		w.send(cmd("PING"))
		first, err := w.r.Peek(1)
		served = err == nil && first[0] == '+'
	}
}

// What waits for a backend that refuses connections gets no reply, also before a QUIT or RESET. What was refused here before it is
// answered, once. The session ends then.
func TestCommandsBeforeQUITAndRESETEndWithoutABackend(t *testing.T) {
	t.Parallel()
	const denied = "-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n"
	for send, want := range map[string]string{
		cmd("GET", "k") + cmd("QUIT"):     "",
		cmd("QUIT"):                       "",
		cmd("SHUTDOWN") + cmd("RESET"):    denied,
		cmd("GET", "k") + cmd("RESET"):    "",
		cmd("SHUTDOWN") + cmd("QUIT", ""): denied,
	} {
		h := mode{name: "paired"}.start(t, "127.0.0.1:1", func(c *Config) { soonUnavailable(c); c.DenyCommands = []string{"SHUTDOWN"} })
		w := h.dial()
		w.send(send)
		if got := w.wantEnd(); got != want {
			t.Errorf("%q is answered %q, want %q", send, got, want)
		}
	}
}

// The reader learns that its session has ended as it submits: it must not take that for an error of the client, whose
// connection would be reset, with the last replies in it.
func TestBatchOfASessionThatHasEndedIsNoErrorOfTheClient(t *testing.T) {
	t.Parallel()
	s := readerOf(t, nil)
	s.done = make(chan struct{})
	s.tie.Store(ownFromBirth)
	s.take([]byte(cmd("GET", "k")))
	s.client.pend, s.client.route = append(s.client.pend, slot{n: 1}), routeOwn
	close(s.done)
	if err := s.flush(); !errors.Is(err, errEnded) || !errors.Is(s.client.flushErr, errEnded) {
		t.Errorf("flush: %v, kept: %v", err, s.client.flushErr)
	}
}

// Many commands of changing kinds in one batch are counted as what the session holds, and not kept after it.
func TestTalliesOfABatchAreCountedAndNotKept(t *testing.T) {
	t.Parallel()
	s := readerOf(t, nil)
	c := &s.client
	for range 1000 {
		for _, name := range []string{"PING", "TIME"} {
			cmd, _, _ := s.client.settings.commands.Lookup([]byte(name))
			s.count(cmd)
		}
	}
	before := s.account().Held()
	s.countBatch()
	if got := s.account().Held() - before; got < 1999*tallyCost {
		t.Errorf("%d bytes are counted for %d tallies", got, len(c.tallied))
	}
	s.tally(s.stripe.own)
	s.countBatch()
	if got := s.account().Held() - before; got != 0 || cap(c.tallied) > fewSlots {
		t.Errorf("%d bytes and room for %d tallies are kept", got, cap(c.tallied))
	}
}

// A session that owns its connection from birth keeps it when the backend's name leads elsewhere, as a direct connection does.
func TestSessionWithoutACertificateStaysWhereTheBackendWas(t *testing.T) {
	t.Parallel()
	addrs := reserve(t, "127.0.0.1", "127.0.0.2")
	first := newLaneBackendOn(t, addrs[0])
	newLaneBackendOn(t, addrs[1])
	_, port, _ := net.SplitHostPort(addrs[0])
	n := proxytest.NewResolver("127.0.0.1")
	j := &judgement{}
	h := start(t, net.JoinHostPort("backend.test", port), func(c *Config) {
		c.Backend.Shared, c.Backend.Credentials = true, credentials("", "secret")
		c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
			if len(cs.PeerCertificates) == 0 {
				return Peer{}, nil
			}
			return j.recheck(cs)
		}
		c.TLS.ClientAuth = tls.VerifyClientCertIfGiven
		c.unavailableTimeout, c.lookup = patience, n.Lookup
	})
	nobody := testPKI().clientConfig()
	nobody.Certificates = nil
	c, err := tls.Dial("tcp", h.addr, nobody)
	if err != nil {
		t.Fatal(err)
	}
	w, tied := newWire(t, c), h.dialAs("a")
	w.get("0")
	tied.get("0")
	tied.do("+OK\r\n", "CLIENT", "ID")
	held := first.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	first.ln.Close()
	n.Set("127.0.0.2")
	h.dialAs("b").get("at the second")
	h.wantClosed(closeMoved, 1) // the one that is tied to its connection otherwise
	held.release()
	w.want(valueOf("held"))
	w.get("afterwards")
}
