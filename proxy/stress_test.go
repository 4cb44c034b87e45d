package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

const (
	stressIdentities = 4
	stressSessions   = 64 // goroutines, of two sessions each
)

// stress is what all sessions share.
type stress struct {
	t          *testing.T
	seed       uint64
	total      int64 // commands
	h          *harness
	relay      *proxytest.Relay
	identities [stressIdentities]*tls.Config
	commands   atomic.Int64
	storming   atomic.Bool // backend connections may have been lost
	failed     atomic.Bool
	kinds      counts
	admin      stressAdmin
}

// Many sessions on lanes, each with keys, values, channels and lists of its own, while clients die and then backend
// connections as well: every reply is right, or is one of the two errors of ours, or the session ends.
func TestSharedStress(t *testing.T) {
	t.Parallel()
	st := &stress{t: t, seed: testSeed(t), total: 60000}
	if v := os.Getenv("STRESS_COMMANDS"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		st.total = n
	}
	t.Logf("TEST_SEED=%d", st.seed)
	backend := redisServer(t)
	relay, err := proxytest.NewRelay("unix:"+backend, proxytest.Faults{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	st.relay = relay
	st.admin.w = dialPlain(t, backend)
	st.admin.id = string(st.admin.do("CLIENT", "ID").text)
	for i := range st.identities {
		c := testPKI().clientConfig()
		c.Certificates = []tls.Certificate{testPKI().issue(pki.Leaf{CN: fmt.Sprintf("identity-%d", i), Client: true})}
		st.identities[i] = c
	}
	st.h = start(t, relay.Addr(), func(c *Config) {
		swept(c)
		c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
			leaf := cs.PeerCertificates[0]
			return Peer{Identity: sha256.Sum256(leaf.Raw), Name: leaf.Subject.CommonName}, nil
		}
		share(c)
		c.Backend.Credentials = func() (string, string, error) { return "default", "any", nil }
		c.Backend.SetName = true
		c.stayInterval = time.Millisecond
		// The storm makes lanes fail all the time: how long the proxy then waits is a part of the work, not a limit that a
		// slow machine runs into.
		c.stuckTimeout, c.laneBusyRetry = time.Second, time.Second
		c.Log = c.Log.Level(zerolog.WarnLevel)
	})
	began := time.Now()
	var sessions, storm sync.WaitGroup
	done := make(chan struct{})
	storm.Go(func() { st.storm(done) }) // ends with done
	for i := range stressSessions {
		sessions.Go(func() { newStressSession(st, i).live() }) // ends when enough commands were sent, or one has failed
	}
	sessions.Wait()
	close(done)
	storm.Wait()
	st.report(time.Since(began))
}

// giveUp ends the goroutine where another has failed.
func (st *stress) giveUp() {
	if st.failed.Load() {
		runtime.Goexit()
	}
}

func (st *stress) over() bool { return st.failed.Load() || st.commands.Load() >= st.total }

// report checks what is left when all sessions have ended.
func (st *stress) report(took time.Duration) {
	t := st.t
	lanes, all := uint64(0), uint64(0)
	s := st.h.Stats()
	for _, n := range s.CommandsLane {
		lanes += n
		all += n
	}
	for _, m := range []map[string]uint64{s.Commands, s.CommandsLocal} {
		for _, n := range m {
			all += n
		}
	}
	t.Logf("TEST_SEED=%d: %d commands in %v; of %d that the proxy counts %d rode lanes; %d dials, %d lanes at the end", st.seed,
		st.commands.Load(), took.Round(time.Millisecond), all, lanes, s.BackendDials, s.BackendLanes)
	kinds := st.kinds.snapshot()
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%8d %s", kinds[k], k)
	}
	t.Logf("sessions closed: %v; backend errors: %v", s.SessionsClosed, s.BackendErrors)
	if st.failed.Load() {
		return
	}
	if lanes < all/3 {
		t.Errorf("%d of %d commands rode lanes: that proves little", lanes, all)
	}
	if st.total >= 1000000 {
		for _, k := range append(slices.Sorted(maps.Keys(stressOperations)), stressFaults...) {
			if kinds[k] < 100 {
				t.Errorf("%s: %d times only", k, kinds[k])
			}
		}
	}
	for _, r := range []closeReason{closeProtocol, closeHTTP, closeInternalError, closeBackendAuth, closeBackendOpen, closeRefused, closeReset,
		closeMemory, closeSlow, closeIdle} {
		if n := s.SessionsClosed[string(r)]; n > 0 {
			t.Errorf("%d sessions ended for %s", n, r)
		}
	}
	eventually(t, "no session", func() bool { return st.h.Stats().Sessions == 0 })
	st.h.Close()
	eventually(t, "no backend connection", func() bool {
		s := st.h.Stats()
		return s.BackendConnections == 0 && s.BackendLanes == 0
	})
	eventually(t, "the backend has no client", func() bool { return len(st.admin.clients()) == 0 })
}

// stressFaults are counted as they are done.
var stressFaults = []string{"client reset", "client close", "kill a lane", "kill any", "relay resets all", "relay cuts",
	"closed by the proxy"}

// storm ends backend connections once a quarter of the commands was sent.
func (st *stress) storm(done <-chan struct{}) {
	r := rand.New(rand.NewPCG(st.seed, 1<<40))
	for {
		for next := st.commands.Load() + 200 + int64(r.IntN(600)); st.commands.Load() < next; time.Sleep(time.Millisecond) {
			select {
			case <-done:
				return
			default:
			}
		}
		if st.commands.Load() < st.total/4 {
			continue
		}
		st.storming.Store(true)
		st.relay.SetFaults(proxytest.Faults{})
		switch n := r.IntN(20); n {
		case 0, 1, 2:
			st.kinds.add("relay resets all")
			st.relay.ResetAll()
		case 3, 4, 5:
			before := st.relay.Accepted()
			f := proxytest.Fault{Cut: 2000 + r.IntN(200000), CutWith: []proxytest.Cut{proxytest.CutReset, proxytest.CutFIN, proxytest.CutHalfClose}[r.IntN(3)]}
			if n == 3 {
				st.relay.SetFaults(proxytest.Faults{ToTarget: f})
			} else {
				st.relay.SetFaults(proxytest.Faults{ToClient: f})
			}
			st.kill(r, true)
			for end := st.commands.Load() + 300; st.commands.Load() < end && !st.over(); {
				time.Sleep(time.Millisecond)
			}
			st.relay.SetFaults(proxytest.Faults{})
			for range st.relay.Accepted() - before {
				st.kinds.add("relay cuts")
			}
		default:
			st.kill(r, n < 14)
		}
	}
}

// kill has the backend end one of its connections.
func (st *stress) kill(r *rand.Rand, lane bool) {
	var from []string
	for _, c := range st.admin.clients() {
		if !lane || strings.HasPrefix(c["name"], "dragontls:identity-") {
			from = append(from, c["id"])
		}
	}
	if len(from) == 0 {
		return
	}
	if st.admin.do("CLIENT", "KILL", "ID", from[r.IntN(len(from))]).is(':', "1") {
		st.kinds.add(map[bool]string{true: "kill a lane", false: "kill any"}[lane])
	}
}

// stressAdmin speaks with the backend directly.
type stressAdmin struct {
	mu sync.Mutex
	w  *wire
	id string
	db int
}

func (a *stressAdmin) do(args ...string) stressReply {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.doLocked(args...)
}

func (a *stressAdmin) doLocked(args ...string) stressReply {
	a.w.SetDeadline(time.Now().Add(90 * time.Second))
	if _, err := a.w.Write([]byte(cmd(args...))); err != nil {
		return stressReply{kind: '-', text: []byte(err.Error())}
	}
	v, err := readStressReply(a.w.r)
	if err != nil {
		return stressReply{kind: '-', text: []byte(err.Error())}
	}
	return v
}

func (a *stressAdmin) in(db int, args ...string) stressReply {
	a.mu.Lock()
	defer a.mu.Unlock()
	if db != a.db {
		if v := a.doLocked("SELECT", strconv.Itoa(db)); v.kind == '-' {
			return v
		}
		a.db = db
	}
	return a.doLocked(args...)
}

// clients are all but this one, by field of CLIENT LIST.
func (a *stressAdmin) clients() (all []map[string]string) {
	for line := range strings.Lines(string(a.do("CLIENT", "LIST").text)) {
		c := make(map[string]string)
		for _, f := range strings.Fields(line) {
			k, v, _ := strings.Cut(f, "=")
			c[k] = v
		}
		if c["id"] != a.id {
			all = append(all, c)
		}
	}
	return all
}
