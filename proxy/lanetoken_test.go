package proxy

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/backend"
)

// Who comes while another writes leaves its bytes to who has the token.
func TestOnlyWhoHasTheTokenWrites(t *testing.T) {
	t.Parallel()
	h, b, all := onOneLane(t, 2)
	first, second := all[0], all[1]
	other := h.sessionOf(second)
	writing := make(chan struct{})
	var once sync.Once
	lanes := make(chan aLane, 1)
	lanes <- h.lane().replaceWith(t, func(up *backend.Conn) {
		tap(t, up, taps{write: func(call func() bool) bool {
			once.Do(func() {
				l := <-lanes
				close(writing)
				for end := time.Now().Add(patience); l.inFlight() < 2 && time.Now().Before(end); {
					time.Sleep(time.Millisecond) // a slow write
				}
				for range 50 { // it goes on when the other one waits for its client again
					if time.Sleep(time.Millisecond); other.holds.Load() == holdsNothing {
						break
					}
				}
			})
			return call()
		}})
	})
	first.send(cmd("GET", "first"))
	select {
	case <-writing:
	case <-time.After(patience):
		t.Fatal("want a write on the lane")
	}
	second.send(cmd("GET", "second"))
	first.want(valueOf("first"))
	second.want(valueOf("second"))
	if b.lanes() != 2 { // the one that was replaced is among them
		t.Errorf("%d lanes", b.lanes())
	}
}

// Slots and bytes enter a lane in one order, whoever writes: many sessions at once, each of which knows what it asked.
func TestManySessionsOnALaneGetTheirOwnReplies(t *testing.T) {
	t.Parallel()
	const sessions, rounds = 16, 60
	h, b, all := onOneLane(t, sessions)
	var wg sync.WaitGroup
	for i, w := range all {
		wg.Go(func() {
			for n := range rounds {
				commands, replies := pipelineOf(1+(n+i)%7, fmt.Sprintf("%d-%d", i, n))
				if n%5 == 0 {
					commands = cmd("MULTI") + commands + cmd("EXEC")
					k := 1 + (n+i)%7
					replies = "+OK\r\n" + strings.Repeat("+QUEUED\r\n", k) + fmt.Sprintf("*%d\r\n", k) + replies
				}
				if _, err := io.WriteString(w, commands); err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(replies))
				if k, err := io.ReadFull(w.r, got); err != nil || string(got) != replies {
					t.Errorf("session %d got %q (%v)\nwant %q", i, got[:k], err, replies)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if b.lanes() != 1 || h.closedFor(closeLane) != 0 {
		t.Errorf("%d lanes, %d sessions closed", b.lanes(), h.closedFor(closeLane))
	}
	h.wantOnLanes("EXEC", sessions*rounds/5)
}
