//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// attack is what many attackers do, all of one identity or of none. An act is one connection.
type attack struct {
	name       string
	protocol   string   // of HELLO, for the honest sessions
	sharedOnly bool     // without shared connections there is nothing to attack
	attackers  int      // at the same time
	pace       int      // acts that may begin in a second
	first      int      // acts after which the attack is under way; zero: one
	mark       []string // a metric and its labels, above zero once the proxy has defended itself; nil: no metric shows it
	// prepare makes keys and certificates and returns the act. An act calls did once it has done its worst; afterwards it
	// may keep its connection.
	prepare func(p *instance, seed uint64) func(r *rand.Rand, did func())
}

const (
	attackVariable = "E2E_ATTACK" // makes the test binary an attacker; holds its orders
	attackBegan    = "the attack is under way\n"
	attackerName   = "attacker"
)

// orders are what an attacking process is to do. It ends with its standard input.
type orders struct {
	Attack, Address, Dir string
	Seed                 uint64
}

// attackFor is the main function of an attacking process.
func attackFor(text string) {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	for _, a := range attacks {
		if a.name == o.Attack {
			p := &instance{process: &process{t: attacker{}}, addr: o.Address, dir: o.Dir}
			acts := a.begin(a.prepare(p, o.Seed), o.Seed)
			io.Copy(io.Discard, os.Stdin)
			fmt.Printf("%d acts\n", acts.Load())
			return
		}
	}
	panic("no attack " + o.Attack)
}

// begin has all attackers attack until the process ends. It returns when the attack is under way.
func (a *attack) begin(act func(*rand.Rand, func()), seed uint64) (acts *atomic.Int64) {
	acts = new(atomic.Int64)
	began := make(chan struct{})
	turns := make(chan struct{}, 1)
	did := func() {
		if acts.Add(1) == int64(max(a.first, 1)) {
			close(began)
		}
	}
	for i := range a.attackers {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		go func() { // ends with the process
			for range turns {
				ended := make(chan struct{})
				go func() { // ends with the act, at the latest when its peer closes the connection
					defer close(ended)
					act(r, did)
				}()
				<-ended
			}
		}()
	}
	go func() { // ends with the process
		for range time.Tick(time.Second / time.Duration(a.pace)) {
			select {
			case turns <- struct{}{}:
			default: // all attackers are busy
			}
		}
	}()
	<-began
	fmt.Print(attackBegan)
	return acts
}

// attacker is the testing.TB of the helpers in an attacking process. Fatal ends the act only: the proxy may close any
// attacker at any time.
type attacker struct{ testing.TB }

func (attacker) Helper()        {}
func (attacker) Cleanup(func()) {}

func (attacker) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	runtime.Goexit()
}

func (t attacker) Fatalf(format string, args ...any) { t.Fatal(fmt.Sprintf(format, args...)) }
func (attacker) Error(args ...any)                   { fmt.Fprintln(os.Stderr, args...) }
func (t attacker) Errorf(format string, args ...any) { t.Error(fmt.Sprintf(format, args...)) }

// dial opens a TCP connection to the proxy.
func (p *instance) dial() net.Conn {
	p.t.Helper()
	c, err := net.DialTimeout("tcp", p.addr, patience)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// keep closes a connection when its peer does, or after a random time up to most.
func keep(c net.Conn, r *rand.Rand, most time.Duration) {
	c.SetReadDeadline(time.Now().Add(time.Duration(r.Int64N(int64(most)))))
	io.Copy(io.Discard, c)
	c.Close()
}
