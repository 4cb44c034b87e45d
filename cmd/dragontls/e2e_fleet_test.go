//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// fleetSize sessions of one client library. What is asked of it is ordinary: GETs and SETs, with default options.
const fleetSize = 50

// fleet is what a client library does while we watch.
type fleet struct {
	working func() bool // each session has got through some rounds
	end     func()      // and fails the test where one did not get what it asked for
}

// child is a fleet that is a program; see testdata/node/sessions.js.
func child(t *testing.T, p *instance, cmd *exec.Cmd) fleet {
	t.Helper()
	cmd.Env = append(environ(), "PORT="+p.port(), "CA="+p.file("ca.crt"), "CERT="+p.file("client.crt"), "KEY="+p.file("client.key"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := launch(t, cmd)
	return fleet{
		working: func() bool {
			if !c.running() {
				t.Fatalf("it has ended:\n%s%s", &c.stdout, &c.stderr)
			}
			return strings.Contains(c.stdout.String(), "working\n")
		},
		end: func() {
			in.Close()
			c.wantExit(0)
			t.Logf("%s", strings.TrimSpace(c.stdout.String()))
		},
	}
}

func nodeFleet(t *testing.T, p *instance, library string) fleet {
	t.Helper()
	need(t, "node")
	if found, _ := filepath.Glob(nodeDir + "/node_modules/" + library); len(found) == 0 {
		missing(t, library+" is not installed: run npm ci in cmd/dragontls/"+nodeDir)
	}
	cmd := exec.Command("node", "sessions.js", library)
	cmd.Dir = nodeDir
	return child(t, p, cmd)
}

// pythonFleet takes Debian's Python where the first one in the path has no redis-py.
func pythonFleet(t *testing.T, p *instance) fleet {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import redis").Run() == nil {
			return child(t, p, exec.Command(python, "testdata/python/sessions.py"))
		}
	}
	missing(t, "redis-py is not installed: install python3-redis")
	return fleet{}
}

// rounds lets each of the sessions repeat its round until the fleet's end.
func rounds(t *testing.T, round func(ctx context.Context, session, n int) error) fleet {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done [fleetSize]atomic.Int64
	for i := range done {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := round(context.Background(), i, n); err != nil {
					t.Errorf("session %d, round %d: %v", i, n, err)
					return
				}
				done[i].Add(1)
				time.Sleep(100 * time.Millisecond) // such clients have other things to do as well
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return fleet{
		working: func() bool {
			if t.Failed() {
				t.FailNow()
			}
			for i := range done {
				if done[i].Load() < 5 {
					return false
				}
			}
			return true
		},
		end: func() {
			cancel()
			wg.Wait()
			total := int64(0)
			for i := range done {
				total += 2 * done[i].Load()
			}
			t.Logf("%d replies", total)
		},
	}
}

func goRedisFleet(t *testing.T, p *instance) fleet {
	t.Helper()
	var all [fleetSize]*goredis.Client
	for i := range all {
		all[i] = goredis.NewClient(&goredis.Options{Addr: p.addr, TLSConfig: p.clientTLS(), PoolSize: 1})
		t.Cleanup(func() { all[i].Close() })
	}
	return rounds(t, func(ctx context.Context, i, n int) error {
		key, value := fmt.Sprint("go:", i), fmt.Sprint(n)
		if err := all[i].Set(ctx, key, value, 0).Err(); err != nil {
			return err
		}
		got, err := all[i].Get(ctx, key).Result()
		if err == nil && got != value {
			err = fmt.Errorf("got %q, want %q", got, value)
		}
		return err
	})
}

// cliFleet is redis-cli as scripts use it: commands come by its standard input.
func cliFleet(t *testing.T, p *instance) fleet {
	t.Helper()
	need(t, "redis-cli")
	var all [fleetSize]struct {
		*process
		in io.Writer
	}
	for i := range all {
		cmd := exec.Command("redis-cli", p.flags()...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		all[i].process, all[i].in = launch(t, cmd), in
	}
	return rounds(t, func(ctx context.Context, i, n int) error {
		if _, err := fmt.Fprintf(all[i].in, "SET cli:%d %d\nGET cli:%d\n", i, n, i); err != nil {
			return err
		}
		for want := fmt.Sprintf("OK\n%d\n", n); !strings.HasSuffix(all[i].stdout.String(), want); time.Sleep(10 * time.Millisecond) {
			if !all[i].running() || strings.Contains(all[i].stdout.String(), "ERR") {
				return errors.New(all[i].stdout.String() + all[i].stderr.String())
			}
		}
		return nil
	})
}

// Clients that do ordinary things ride lanes, whatever their library says when it connects.
func TestClientsRideLanes(t *testing.T) {
	t.Parallel()
	fleets := map[string]func(*testing.T, *instance) fleet{
		"redis-cli":  cliFleet,
		"ioredis":    func(t *testing.T, p *instance) fleet { return nodeFleet(t, p, "ioredis") },
		"node-redis": func(t *testing.T, p *instance) fleet { return nodeFleet(t, p, "redis") },
		"go-redis":   goRedisFleet,
		"redis-py":   pythonFleet,
	}
	for name, start := range fleets {
		for _, password := range []bool{true, false} {
			if !password && name != "ioredis" {
				continue // one is enough: who asks makes no difference there
			}
			t.Run(fmt.Sprintf("%s password %t", name, password), func(t *testing.T) {
				t.Parallel()
				r := redisServer(t)
				if password {
					r = lockedRedis(t)
				}
				p := sharing(t, r, "BACKEND_LANES=2") // however busy the machine is
				testRidesLanes(t, r, p, start(t, p))
			})
		}
	}
}

func testRidesLanes(t *testing.T, r *redis, p *instance, f fleet) {
	const most = 8 // backend connections: lanes of 50 sessions, those for slow commands too, none of which has its own
	onLanes := func() float64 { return p.metrics().sum("commands_total", "path", "lane") }
	eventually(t, "every session works", f.working)
	begun := time.Now()
	if got := p.metrics().sum("connections", "state", "open"); got != fleetSize {
		t.Errorf("got %v sessions, want %d", got, fleetSize)
	}
	list := r.clients()
	for ; len(list) > most && time.Since(begun) < patience; list = r.clients() {
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(begun)
	if len(list) > most {
		t.Fatalf("still %d backend connections; what they did last:\n%s\n%s", len(list), strings.Join(list, "\n"), ways(p.metrics()))
	}
	// It stays so.
	before, counts := onLanes(), []int{}
	for onLanes() < before+20*fleetSize {
		counts = append(counts, len(r.clients()))
		f.working()
	}
	for _, n := range counts {
		if n > most {
			t.Errorf("backend connections while they worked: %v", counts)
			break
		}
	}
	m := p.metrics()
	if got := m.sum("connections", "state", "open"); got != fleetSize {
		t.Errorf("got %v sessions, want %d", got, fleetSize)
	}
	t.Logf("%d backend connections for %d sessions after %v; %s", counts[len(counts)-1], fleetSize, took.Round(time.Millisecond), ways(m))
	f.end()
	p.wantEnd()
}

// ways tells which commands went over what.
func ways(m samples) string {
	var b strings.Builder
	for _, s := range m {
		if s.name == "commands_total" {
			fmt.Fprintf(&b, " %s/%s:%v", s.labels["command"], s.labels["path"], s.value)
		}
	}
	return "commands" + b.String()
}
