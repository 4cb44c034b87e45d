//go:build prober

package proxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// TestProberFindsOneReplyToEveryCommandOnLanes is what a new release of the backend has to pass before commands.txt says
// that its commands may ride connections which sessions share:
//
//	DRAGONFLY_ADDR=127.0.0.1:6379 TEST_TIME=30m go test -tags prober -run ProberFindsOne -timeout 0 -v ./proxy/
//
// The backend must be one for tests, reached in clear and without a password. TEST_SEED repeats a run.
func TestProberFindsOneReplyToEveryCommandOnLanes(t *testing.T) {
	addr := os.Getenv("DRAGONFLY_ADDR")
	if addr == "" {
		t.Skip("DRAGONFLY_ADDR is not set")
	}
	seed := testSeed(t)
	t.Logf("TEST_SEED=%d", seed)
	p := newProber(t, addr, seed)
	for _, name := range classed(command.Quiet, command.Unbounded) {
		p.add(name, true)
	}
	for _, name := range classed(command.Plain, command.UnboundedPlain) {
		p.add(name, false)
	}
	p.run(testTime(t, time.Minute))
	for _, f := range p.faults {
		t.Error(f)
	}
	p.report()
}

// classed returns the sorted names and NAME|SUBCOMMANDs of the classes.
func classed(classes ...command.Class) (names []string) {
	for _, row := range catalogue() {
		if slices.ContainsFunc(classes, func(c command.Class) bool { return c.String() == row.class }) {
			names = append(names, row.full)
		}
	}
	slices.Sort(names)
	return names
}

// prober sends commands with arguments that no client should send, each followed by an ECHO of what it will not meet
// elsewhere.
type prober struct {
	t       *testing.T
	addr    string
	timeout time.Duration // of what was sent at once
	rand    *rand.Rand
	subs    []*subject
	faults  []string
	calls   int
	refused int           // of the calls inside MULTI
	conns   [2]*probeConn // RESP2, RESP3
}

// subject is one command that is probed.
type subject struct {
	words   []string // NAME, or NAME and SUBCOMMAND
	absent  bool     // the backend has no such command
	pool    []string // payloads
	inOrder int      // of them are tried in every place
	shapes  [][]string
	step    int // of the calls that are made in order; random ones follow
	calls   int
	faulted int
}

const (
	callsAtOnce = 16
	maxFaults   = 3 // reported of one command
)

func newProber(t *testing.T, addr string, seed uint64) *prober {
	p := &prober{t: t, addr: addr, timeout: 10 * time.Second, rand: rand.New(rand.NewPCG(seed, 0))}
	t.Cleanup(func() {
		for _, c := range p.conns {
			c.close()
		}
	})
	return p
}

// add adds NAME or NAME|SUBCOMMAND. breaks: its arguments may hold CR and LF.
func (p *prober) add(name string, breaks bool) {
	s := &subject{words: strings.Split(name, "|")}
	s.pool, s.inOrder = payloads(breaks)
	for _, shape := range probeShapes {
		if words := strings.Fields(shape); len(words) >= len(s.words) && slices.Equal(words[:len(s.words)], s.words) {
			s.shapes = append(s.shapes, words[len(s.words):])
		}
	}
	for _, shape := range []string{"", "s", "s 1", "s v w", "z 0 1 v", "h 1 v w 2"} {
		s.shapes = append(s.shapes, strings.Fields(shape))
	}
	for i, shape := range s.shapes {
		s.shapes[i] = nameKeys(shape)
	}
	p.subs = append(p.subs, s)
}

// run probes until the time is over, each command once at least.
func (p *prober) run(long time.Duration) {
	end := time.Now().Add(long)
	for first := true; first || time.Now().Before(end); first = false {
		p.rand.Shuffle(len(p.subs), func(i, j int) { p.subs[i], p.subs[j] = p.subs[j], p.subs[i] })
		for _, s := range p.subs {
			if !first && !time.Now().Before(end) {
				return
			}
			if first && p.lacks(s) || s.absent || s.faulted >= maxFaults {
				continue
			}
			p.visit(s)
		}
	}
}

// visit makes the same calls alone, in a pipeline and in transactions, on both protocols.
func (p *prober) visit(s *subject) {
	var calls [][]string
	for range callsAtOnce {
		calls = append(calls, append(slices.Clone(s.words), s.next(p.rand)...))
	}
	for i := range p.conns {
		for _, call := range calls {
			p.send(s, i, [][]string{call}, false)
		}
		p.send(s, i, calls, false)
		p.send(s, i, calls, true)
	}
}

// lacks asks whether the backend has the command at all.
func (p *prober) lacks(s *subject) bool {
	c := p.conn(0)
	reply, err := c.ask(s.words...)
	s.absent = err == nil && strings.HasPrefix(string(reply), "-ERR unknown command")
	return s.absent
}

// next is the arguments of the next call: first every payload in every place of every shape, then chance.
func (s *subject) next(r *rand.Rand) []string {
	places := 0
	for _, shape := range s.shapes {
		places += len(shape) + 1 // one behind the end too
	}
	if payload := s.step / places; payload < s.inOrder {
		at := s.step % places
		s.step++
		for _, shape := range s.shapes {
			if at > len(shape) {
				at -= len(shape) + 1
				continue
			}
			args := append(slices.Clone(shape), "")[:max(len(shape), at+1)]
			args[at] = s.pool[payload]
			return args
		}
	}
	args := slices.Clone(s.shapes[r.IntN(len(s.shapes))])
	if r.IntN(8) == 0 {
		args = args[:r.IntN(len(args)+1)]
	}
	for range r.IntN(4) * r.IntN(2) {
		args = append(args, s.any(r))
	}
	for range r.IntN(3) {
		if len(args) > 0 {
			args[r.IntN(len(args))] = s.any(r)
		}
	}
	if r.IntN(30) == 0 && len(args) > 0 {
		args[r.IntN(len(args))] = strings.Repeat("x", 100_000) + s.pool[r.IntN(len(s.pool))]
	}
	return args
}

func (s *subject) any(r *rand.Rand) string {
	switch r.IntN(4) {
	case 0:
		return probeKey(probeTypes[r.IntN(len(probeTypes))])
	case 1:
		return []string{"0", "1", "2", "-1", "1000", "1.5", "(1", "+inf", "-", "+", "[a", "*", "$"}[r.IntN(13)]
	case 2:
		return optionWords[r.IntN(len(optionWords))]
	}
	return s.pool[r.IntN(len(s.pool))]
}

// send makes calls on freshly made keys and notes the first that is not answered as it should be.
func (p *prober) send(s *subject, proto int, calls [][]string, multi bool) {
	if s.faulted >= maxFaults {
		return
	}
	c := p.conn(proto)
	nonce := p.rand.Uint64()
	var out []byte
	for i, call := range calls {
		echo := []string{"ECHO", probeNonce(nonce, i)}
		if multi {
			out = resp.AppendCommand(resp.AppendCommand(resp.AppendCommand(resp.AppendCommand(out, "MULTI"), call...), echo...), "EXEC")
		} else {
			out = resp.AppendCommand(out, call...)
		}
		out = resp.AppendCommand(out, echo...)
	}
	var wrote sync.WaitGroup
	wrote.Go(func() { c.write(out) }) // ends with the last byte, or with the connection
	defer wrote.Wait()
	s.calls += len(calls)
	p.calls += len(calls)
	for i, call := range calls {
		refused, err := c.answered(probeNonce(nonce, i), multi)
		if refused {
			p.refused++
		}
		if err == nil {
			continue
		}
		s.faulted++
		p.faults = append(p.faults, fmt.Sprintf("%s (RESP%d, %d at once, MULTI %v): %v", quoted(call), proto+2, len(calls), multi, err))
		c.close()
		p.conns[proto] = nil
		return
	}
}

func probeNonce(n uint64, i int) string { return fmt.Sprintf("nonce-%016x-%d", n, i) }

// quoted shows a command, of long arguments the ends.
func quoted(call []string) string {
	var all []string
	for _, arg := range call {
		if len(arg) > 80 {
			arg = arg[:20] + fmt.Sprintf("<%d bytes>", len(arg)-40) + arg[len(arg)-20:]
		}
		all = append(all, fmt.Sprintf("%q", arg))
	}
	return strings.Join(all, " ")
}

func (p *prober) report() {
	least, absent, in := p.calls, []string(nil), 0
	for _, s := range p.subs {
		if s.absent {
			absent = append(absent, strings.Join(s.words, "|"))
			continue
		}
		in++
		least = min(least, s.calls)
	}
	slices.Sort(absent)
	p.t.Logf("%d commands, %d calls, %d at least of each, %d refused inside MULTI; not there: %q", in, p.calls, least, p.refused, absent)
}

// conn is the open connection of a protocol, its keys made anew.
func (p *prober) conn(proto int) *probeConn {
	c := p.conns[proto]
	if c == nil {
		network, addr, _ := backendAt(p.addr)()
		conn, err := net.Dial(network, addr)
		if err != nil {
			p.t.Fatalf("the backend is gone: %v, after %q", err, p.faults)
		}
		c = &probeConn{conn: conn, timeout: p.timeout, replies: resp.Replies{Strict: true}}
		p.conns[proto] = c
		if proto == 1 {
			if reply, err := c.ask("HELLO", "3"); err != nil || reply[0] != '%' {
				p.t.Fatalf("HELLO 3: %q, %v", reply, err)
			}
		}
	}
	for _, command := range probeData() {
		c.write(resp.AppendCommand(nil, command...))
	}
	for _, command := range probeData() {
		if _, err := c.frame(); err != nil {
			p.t.Fatalf("%s: %v", quoted(command), err)
		}
	}
	return c
}
