//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// wanderer is a client that goes through databases and protocols.
type wanderer struct {
	p        *instance
	config   *tls.Config
	id       int
	protocol string
	conn     net.Conn
	r        *bufio.Reader
	answered *atomic.Int64
	waiting  *atomic.Int64 // answered that there is no backend connection
	closed   *atomic.Int64 // sessions, after that answer
}

func (w *wanderer) connect() error {
	raw, err := net.DialTimeout("tcp", w.p.addr, patience)
	if err != nil {
		return err
	}
	w.conn = tls.Client(raw, w.config)
	w.r = bufio.NewReader(w.conn)
	return nil
}

// send wants these replies to these commands. false: there was no backend connection, and the session has ended.
func (w *wanderer) send(commands [][]string, want ...string) (bool, error) {
	var out strings.Builder
	for _, c := range commands {
		out.WriteString(array(c...))
	}
	w.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(w.conn, out.String()); err != nil {
		return false, err
	}
	unsent := false
	for i, command := range commands {
		got, err := readReply(w.r)
		switch {
		case unsent && errors.Is(err, io.EOF):
			w.closed.Add(1)
			return false, nil
		case err != nil:
			return false, fmt.Errorf("%v: %w", command, err)
		case got == textUnsent:
			unsent = true
			w.waiting.Add(1)
		case got == want[i], command[0] == "HELLO" && strings.HasPrefix(got, want[i]):
			w.answered.Add(1)
		default:
			return false, fmt.Errorf("%v: got %q, want %q", command, got, want[i])
		}
	}
	return !unsent, nil
}

// visit works in a database: at once after SELECT on its own connection, later on a lane.
func (w *wanderer) visit(db int) error {
	key, value := fmt.Sprint("of ", w.id), fmt.Sprint(w.id, " in ", db)
	hello := map[string]string{"2": "*14 $server", "3": "%7 $server"}[w.protocol]
	arrive := [][]string{{"SELECT", fmt.Sprint(db)}, {"SET", key, value}, {"GET", key}}
	for {
		ok, err := w.send([][]string{{"HELLO", w.protocol}}, hello)
		if err == nil && ok {
			ok, err = w.send(arrive, "+OK", "+OK", "$"+value)
		}
		if err == nil && ok {
			// Such a client pauses for longer than the proxy keeps a session on its own connection.
			time.Sleep(1100 * time.Millisecond)
			ok, err = w.send([][]string{{"GET", key}, {"ECHO", value}}, "$"+value, "$"+value)
		}
		if err != nil || ok {
			return err
		}
		w.conn.Close()
		if err := w.connect(); err != nil {
			return err
		}
	}
}

// Clients of many identities in many databases and both protocols need more lanes than there may be connections.
func TestManyKindsOfLanesWithinFewConnections(t *testing.T) {
	t.Parallel() // most of its time it waits
	const identities, databases, connections = 20, 16, 64
	r := lockedRedis(t)
	ca := newCA(t, "crowd")
	p := ownCA(t, ca, r.url(), "BACKEND_MODE=shared", "BACKEND_PASSWORD="+r.password, fmt.Sprint("BACKEND_MAX_CONNECTIONS=", connections)).wantReady()
	var answered, waiting, closed, most atomic.Int64
	var wg sync.WaitGroup
	for i := range identities {
		cert, key, err := ca.Issue(pki.Leaf{CN: fmt.Sprint("identity-", i), Client: true})
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		config := p.clientTLS()
		config.Certificates = []tls.Certificate{pair}
		for _, protocol := range []string{"2", "3"} {
			for half := range 2 {
				w := &wanderer{p: p, config: config, id: 4*i + 2*half, protocol: protocol, answered: &answered, waiting: &waiting, closed: &closed}
				if protocol == "3" {
					w.id++
				}
				wg.Go(func() {
					err := w.connect()
					for n := 0; err == nil && n < databases/2; n++ {
						err = w.visit((i+n)%(databases/2) + half*databases/2)
					}
					if err != nil {
						t.Errorf("session %d: %v", w.id, err)
					}
					if w.conn != nil {
						t.Cleanup(func() { w.conn.Close() }) // it stays, idle
					}
				})
			}
		}
	}
	done := make(chan struct{})
	go func() { // ends with the sessions
		wg.Wait()
		close(done)
	}()
	begun := time.Now()
	for working := true; working; {
		select {
		case <-done:
			working = false
		case <-time.After(100 * time.Millisecond):
			n := p.statusOf().Backend.Connections
			most.Store(max(most.Load(), int64(n)))
		}
	}
	m := p.metrics()
	t.Logf("%d commands answered in %v, %d by %q (%d sessions ended with that); %d connections at most, %v dials, %v commands on lanes", answered.Load(),
		time.Since(begun).Round(time.Millisecond), waiting.Load(), textUnsent, closed.Load(), most.Load(), m.sum("backend_dials_total"), m.sum("commands_total", "path", "lane"))
	if most.Load() > connections {
		t.Errorf("got %d backend connections, want %d at most", most.Load(), connections)
	}
	if m.sum("commands_total", "path", "lane") == 0 {
		t.Error("nothing rode a lane")
	}
	idle := time.Now()
	// Fewer than half of them may stay for the next command.
	eventually(t, "the backend has room again", func() bool { return p.statusOf().Backend.Connections < connections/2 })
	p.wantMetric(4*identities, "connections", "state", "open")
	t.Logf("after %v without work %d backend connections are left", time.Since(idle).Round(time.Millisecond), p.statusOf().Backend.Connections)
	p.wantEnd()
}
