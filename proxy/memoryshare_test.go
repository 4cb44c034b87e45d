package proxy

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/netio"
	"dragontls/proxy/proxytest"
)

// In these tests "greedy" is the identity that takes all memory it can get, and "honest" the one that must not notice.

// twoIdentities gives each certificate an identity of its own, in both modes.
func twoIdentities(c *Config) {
	c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
		leaf := cs.PeerCertificates[0]
		return Peer{Identity: sha256.Sum256(leaf.Raw), Name: leaf.Subject.CommonName}, nil
	}
}

var greedyCert = sync.OnceValue(func() tls.Certificate { return testPKI().issue(pki.Leaf{CN: "greedy", Client: true}) })

// memoryBackend answers PING, GET (which has size bytes) and all that a lane has to show. After a SET it reads nothing
// more on that connection until the test ends.
func memoryBackend(t testing.TB, size int) string {
	value := bulk(strings.Repeat("x", size))
	ended := make(chan struct{})
	addr := fakeBackend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			args, err := readCommand(r)
			if err != nil {
				return
			}
			reply := "+OK\r\n"
			switch strings.ToUpper(args[0]) {
			case "PING":
				reply = "+PONG\r\n"
			case "ECHO":
				reply = bulk(args[1])
			case "EXEC":
				reply = "*0\r\n"
			case "GET":
				reply = value
			case "SET":
				<-ended
				return
			}
			if _, err := io.WriteString(c, reply); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { close(ended) }) // before the backend waits for its goroutines
	return addr
}

// greed makes n sessions of the greedy identity and has each do its worst.
func greed(h *harness, n int, worst func(w *wire)) {
	h.t.Helper()
	for range n {
		worst(h.dialCert(greedyCert()))
	}
}

// pushOn sends s again and again until the connection ends, however much the kernels between take.
func (w *wire) pushOn(s string) {
	go func() { // ends with the connection
		for {
			if _, err := io.WriteString(w.Conn, s); err != nil {
				return
			}
		}
	}()
}

// wantHonestUndisturbed has the honest identity do a fixed amount of work, over a session that it has and over new ones.
func (h *harness) wantHonestUndisturbed(w *wire) {
	h.t.Helper()
	for range 200 {
		w.do("+PONG\r\n", "PING")
	}
	for range 5 {
		h.dial().do("+PONG\r\n", "PING")
	}
}

// greedy sessions that are open.
func (h *harness) greedyOpen() (n int) {
	h.each(func(s *session) {
		if p := s.peer.Load(); p != nil && p.Name == "greedy" && !s.ended() {
			n++
		}
	})
	return n
}

func (h *harness) greedyHeld() (n int64) {
	h.each(func(s *session) {
		if p := s.peer.Load(); p != nil && p.Name == "greedy" {
			n = max(n, s.account().Quota().Held())
		}
	})
	return n
}

// Each way to make the proxy hold memory, by an identity that does it with more sessions than its share has room for.
func TestNoIdentityTakesTheMemoryOfAll(t *testing.T) {
	t.Parallel()
	const limit = 8 << 20 // a share is 2 MiB
	for _, attack := range []struct {
		name     string
		sessions int
		worst    func(w *wire)
		reasons  []closeReason
		left     int // so many at most are not closed
	}{
		// For each less than SESSION_BUFFER at a time.
		{"replies that nobody reads", 40, func(w *wire) { w.pushOn(strings.Repeat(cmd("GET", "k"), 60)) },
			[]closeReason{closeSlow, closeMemory}, 39}, // the latter where only commands waited just then
		{"half commands", 80, func(w *wire) { w.send(halfCommand) },
			[]closeReason{closeMemory}, 2 << 20 / netio.ChunkSize},
		{"half records", 100, func(w *wire) { halfRecord(w) },
			[]closeReason{closeMemory}, 2<<20/(2*netio.PageSize) + 1},
		{"commands that wait for the backend", 40, func(w *wire) { w.pushOn(cmd("SET", "k", strings.Repeat("v", 60000))) },
			[]closeReason{closeMemory}, 39},
	} {
		t.Run(attack.name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				h := m.start(t, memoryBackend(t, 200<<10), func(c *Config) {
					c.BufferLimit, c.SessionBuffer, c.followTimeout = limit, 64<<20, 100*time.Millisecond
					twoIdentities(c)
				})
				honest := h.dial()
				honest.do("+PONG\r\n", "PING")
				stop := h.mostLent()
				greed(h, attack.sessions, attack.worst)
				h.wantHonestUndisturbed(honest)
				eventually(t, "those who hold most are closed", func() bool {
					return h.greedyOpen() <= attack.left && h.greedyHeld() <= limit/4
				})
				h.wantHonestUndisturbed(honest)
				if most := stop(); most > limit/2 {
					t.Errorf("%d bytes were lent to an identity whose share is %d", most, limit/4)
				}
				for r, n := range h.Stats().SessionsClosed {
					if !slices.Contains(attack.reasons, closeReason(r)) {
						t.Errorf("%d are closed for %s, want only %v", n, r, attack.reasons)
					}
				}
			})
		})
	}
}

// halfCommand takes a chunk.
var halfCommand = "*2\r\n$4\r\nECHO\r\n$60000\r\n" + strings.Repeat("x", 50000)

// halfRecord sends the header of the longest record and a byte of it.
func halfRecord(w *wire) {
	raw := w.Conn.(*tls.Conn).NetConn()
	if _, err := raw.Write([]byte{23, 3, 3, 0x40, 0x11, 0}); err != nil { // 16 KiB and 17 bytes: what TLS 1.3 adds
		w.t.Fatal(err)
	}
}

// Seven identities, each within its share, take more than there is for all. One that holds nothing goes on.
func TestSessionsThatHoldNothingGoOnWhenAllMemoryIsTaken(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, memoryBackend(t, 10), func(c *Config) { c.BufferLimit = 4 << 20; twoIdentities(c) })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		for i := range 7 {
			cert := testPKI().issue(pki.Leaf{CN: fmt.Sprint("client ", i), Client: true})
			for range 12 {
				h.dialCert(cert).send(halfCommand)
			}
		}
		h.wantHonestUndisturbed(w)
		eventually(t, "some are closed", func() bool { return h.closedFor(closeMemory) >= 7*12-(4<<20)/netio.ChunkSize })
		h.wantHonestUndisturbed(w)
	})
}

// What the limit of all has no room for is taken from the identity that holds most, and there from the session that does.
func TestReliefTakesFromTheIdentityThatHoldsMost(t *testing.T) {
	t.Parallel()
	b := netio.NewBuffers(0)
	big, small := netio.QuotaKey{Identity: [32]byte{1}}, netio.QuotaKey{Identity: [32]byte{2}}
	holding := func(key netio.QuotaKey, held int64) holder {
		a := b.NewAccount()
		a.Join(key)
		return holder{account: a, held: held, size: held + 1}
	}
	// The greatest holder is of the quota that holds less.
	holders := []holder{holding(small, 100), holding(big, 60), holding(big, 50), holding(big, 40), holding(small, 10), holding(small, 0)}
	for _, tt := range []struct {
		name   string
		choose func([]holder, int64) []*holder
		enough int64
		want   []int
	}{
		{"all, a little", ofAll, 1, []int{1}},
		{"all, more", ofAll, 70, []int{1, 0}}, // without 60 big has 90 left, small 110
		{"all, everything", ofAll, 1000, []int{1, 0, 2, 3, 4, 5}},
		{"small", ofQuota(holders[0].account.Quota()), 1, []int{0}},
		{"big", ofQuota(holders[1].account.Quota()), 61, []int{1, 2}},
		{"small, everything", ofQuota(holders[0].account.Quota()), 1000, []int{0, 4}},
	} {
		var got []int
		for _, h := range tt.choose(holders, tt.enough) {
			for i := range holders {
				if h == &holders[i] {
					got = append(got, i)
				}
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Many idle sessions that only keep room for records weigh more than one that holds something, and stay.
func TestReliefSparesThoseWhoHoldNothingWhileAnybodyHolds(t *testing.T) {
	t.Parallel()
	b := netio.NewBuffers(0)
	crowd, greedy := netio.QuotaKey{Identity: [32]byte{1}}, netio.QuotaKey{Identity: [32]byte{2}}
	var holders []holder
	for range 100 {
		a := b.NewAccount()
		a.Join(crowd)
		holders = append(holders, holder{account: a, size: 50})
	}
	a := b.NewAccount()
	a.Join(greedy)
	holders = append(holders, holder{account: a, held: 100, size: 120})
	if got := ofAll(holders, 110); len(got) != 1 || got[0].account != a {
		t.Errorf("%d are chosen", len(got))
	}
	if got := ofAll(holders, 121); len(got) != 2 || got[0].account != a {
		t.Errorf("%d are chosen where that is too little", len(got))
	}
}

// A session that ends while others are relieved is none of those whose memory is on its way back.
func TestReliefForgetsWhoHasEndedByItself(t *testing.T) {
	t.Parallel()
	r := &reliever{}
	a := netio.NewBuffers(0).NewAccount()
	a.Close()
	r.end(&holder{account: a, session: &session{}}, nil)
	if len(r.ended) > 0 || !a.Closed() {
		t.Errorf("%d are taken to have been ended, closed %v", len(r.ended), a.Closed())
	}
}

func TestHalfARecordAfterTheLastWordIsCounted(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		h := m.start(t, d.Addr(), nil)
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		s := h.sessionAt(w)
		w.send(cmd("BLPOP", "nokey", "0") + "*x\r\n")
		lastWord := func() bool {
			s.queue.mu.Lock()
			defer s.queue.mu.Unlock()
			return s.queue.slots.Len() > 0 && s.queue.slots.At(s.queue.slots.Len()-1).kind == slotFinal
		}
		eventually(t, "it lingers", lastWord)
		raw := w.Conn.(*tls.Conn).NetConn()
		half := append([]byte{23, 3, 3, 0x40, 0}, make([]byte, 100)...)
		if _, err := raw.Write(half); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the room for it is counted", func() bool { return s.account().Held() >= 2*netio.PageSize })
		w.Close()
		eventually(t, "the session has ended", s.ended)
	})
}

func TestClientsWithoutACertificateAreToldApartByNetwork(t *testing.T) {
	t.Parallel()
	for a, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7/32", "[::ffff:192.0.2.7]:2": "192.0.2.7/32",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "[fe80::1%lo]:6": "fe80::/64",
	} {
		addr, err := net.ResolveTCPAddr("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		if got := originOf(addr).String(); got != want {
			t.Errorf("%s: got %s, want %s", a, got, want)
		}
	}
	if got := originOf(&net.UnixAddr{Name: "/s", Net: "unix"}); got.IsValid() {
		t.Errorf("a Unix socket: %s", got)
	}
}

// cutConn calls between after the first thousand bytes of each longer write, unless it is nil.
type cutConn struct {
	net.Conn
	between func()
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.between == nil || len(p) <= 1000 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:1000])
	if err != nil {
		return n, err
	}
	c.between()
	more, err := c.Conn.Write(p[1000:])
	return n + more, err
}

// The room for a record comes back with the rest of it: a session whose record came in two parts does not wait for memory
// that others of its identity hold.
func TestRecordInTwoPartsHoldsNothingOnceItIsWhole(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, memoryBackend(t, 10), func(c *Config) { c.BufferLimit = 8 << 20; twoIdentities(c) })
		raw, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		cut := &cutConn{Conn: raw}
		w := newWire(t, tls.Client(cut, testPKI().clientConfig()))
		w.do("+PONG\r\n", "PING")
		var s *session
		h.each(func(n *session) { s = n })
		other := h.buffers.NewAccount()
		other.Join(s.quotaKey())
		defer other.Close()
		share := h.buffers.LimitOf(other.Quota())
		other.Hold(share / 4 * 3)
		defer other.Hold(-share / 4 * 3)
		cut.between = func() {
			eventually(t, "the first part is counted", func() bool { return s.account().Held() > netio.PageSize })
		}
		value := strings.Repeat("x", 10000)
		for range 3 {
			w.do(bulk(value), "ECHO", value)
			w.do("+PONG\r\n", "PING")
		}
	})
}
