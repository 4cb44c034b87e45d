package proxy

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

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
