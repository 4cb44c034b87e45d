package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// The load generator runs as a process of its own, `dragonbench load`, so that its CPU time is never taken for a
// proxy's. It reads one work as JSON from stdin and answers with lines of JSON, one event each:
//
//	{"event":"start"}              a window begins: everybody is connected and warm
//	{"event":"stop","window":{..}} it ended; the connections stay open until a line or EOF comes on stdin
//	{"event":"error","error":".."} nothing was measured
//
// start and stop alternate, once for each of work.Windows.

// Kinds of work.
const (
	closedLoop = "closed"    // each connection sends when its last replies are there
	openLoop   = "open"      // commands are due at a fixed rate, whatever the peer does
	handshakes = "handshake" // connect, handshake, end
	bursts     = "burst"     // as many handshakes at a time, then quiet for the length of the window
	churn      = "churn"     // connect, one GET, close
	idle       = "idle"      // connect, one PING, be silent
	storm      = "storm"     // closedLoop with new handshakes beside it
	outage     = "outage"    // one PING after the other until the backend is back
	slowOne    = "slow one"  // closedLoop beside a client whose commands take long
	laggards   = "laggards"  // closedLoop, from the second window on beside clients that do not read their replies, or slowly
)

// Commands of a closedLoop, openLoop, storm, slowOne and laggards.
const (
	getCommand   = "get"
	setCommand   = "set"
	mixedCommand = "mixed" // nine GET, one SET of a value never used before
)

// work tells the generator what to do.
type work struct {
	Kind        string
	Address     string
	TLS         *tlsFiles // nil: in clear
	Command     string
	Size        int // bytes of a value
	Connections int
	Pipeline    int
	Rate        float64 // openLoop: commands a second; storm: handshakes a second; slowOne: slow commands a second
	Resume      bool    // handshakes: with the session ticket of the one before
	Orderly     bool    // handshakes, bursts: a FIN from both sides instead of a reset
	Burst       int     // bursts: handshakes in each
	Clients     string  // file with a certificate and key for each client; "": all show the same
	Laggards    int     // laggards: clients beside Connections
	Together    bool    // laggards: they share one of the certificates in Clients
	Warmup      time.Duration
	Windows     []time.Duration
}

// window is what the generator saw between a start and a stop.
type window struct {
	Seconds    float64
	Count      int64          // commands answered as they should, or connections made
	Handshakes int64          // storm: those beside the commands
	Slow       int64          // slowOne: slow commands answered
	Closed     int64          // laggards: connections that the peer closed
	Errors     map[string]int // by what went wrong
	P50        float64        // microseconds
	P99        float64
	P999       float64
	Max        float64
	Unanswered int   // openLoop: commands due but not answered; their wait so far is in the percentiles
	Leaves     int   // server certificates seen
	FirstReply int64 // outage: time of the first good reply, in nanoseconds since 1970
	Session    string
}

type event struct {
	Event  string  `json:"event"`
	Error  string  `json:"error,omitempty"`
	Window *window `json:"window,omitempty"`
}

// generator is the state of one work in the child.
type generator struct {
	work
	tls   *tls.Config // nil: in clear
	in    *bufio.Reader
	out   *json.Encoder
	rec   *recorder
	pacer *pacer // openLoop only
	// before, if there is one, is called before each window, from 0.
	before func(window int) error
	// during, if there is one, lets a window pass and returns how long what is counted took.
	during func(length time.Duration) time.Duration
}

// generate is the main function of the child.
func generate(in io.Reader, out io.Writer) int {
	g := &generator{in: bufio.NewReader(in), out: json.NewEncoder(out)}
	err := g.read()
	if err == nil {
		err = g.run()
	}
	if err != nil {
		g.tell(event{Event: "error", Error: err.Error()})
		return 1
	}
	return 0
}

func (g *generator) read() error {
	line, err := g.in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read work: %w", err)
	}
	if err := json.Unmarshal(line, &g.work); err != nil {
		return fmt.Errorf("read work: %w", err)
	}
	if g.TLS != nil {
		if g.tls, err = g.TLS.client(); err != nil {
			return err
		}
	}
	g.rec = newRecorder()
	return nil
}

func (g *generator) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch g.Kind {
	case closedLoop, openLoop, storm, slowOne, laggards:
		return g.commands(ctx)
	case handshakes, churn:
		return g.connects(ctx)
	case bursts:
		return g.bursts(ctx)
	case idle:
		return g.idle()
	case outage:
		return g.outage()
	}
	return fmt.Errorf("no such kind of work: %q", g.Kind)
}

// tell writes an event. A parent that is gone has closed our stdin too, which ends the work.
func (g *generator) tell(e event) {
	if err := g.out.Encode(e); err != nil {
		os.Exit(1)
	}
}

// proceed waits for the parent's line.
func (g *generator) proceed() error {
	_, err := g.in.ReadString('\n')
	return err
}

// pass lets a window pass while the load runs.
func (g *generator) pass(length time.Duration) time.Duration {
	if g.during != nil {
		return g.during(length)
	}
	began := time.Now()
	time.Sleep(length)
	return time.Since(began)
}

// measure warms up, then takes each window; the load runs meanwhile in goroutines of its own.
func (g *generator) measure() error {
	time.Sleep(g.Warmup)
	for n, length := range g.Windows {
		if g.before != nil {
			if err := g.before(n); err != nil {
				return err
			}
		}
		runtime.GC()
		g.tell(event{Event: "start"})
		g.rec.reset()
		took := g.pass(length)
		if g.pacer != nil {
			g.pacer.overdue(g.rec, time.Now())
		}
		w := g.rec.window(took)
		g.tell(event{Event: "stop", Window: &w})
		if err := g.proceed(); err != nil {
			return err
		}
	}
	return nil
}
