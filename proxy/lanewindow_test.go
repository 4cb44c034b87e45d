package proxy

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"dragontls/proxy/netio"
)

// What waits behind a retired lane goes to the next one as soon as the last reply has come, which the retired one's reader
// may not have accounted for.
func TestSessionThatChangesLanesCountsWhatItHasInFlight(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	s := h.sessionOf(w)
	l := h.lane()
	for i := range 100 {
		key := fmt.Sprint("held ", i)
		held := b.hold(key)
		w.send(cmd("GET", key))
		<-held.reached
		next := l.another(t)
		l.retire()
		commands, replies := pipelineOf(20, fmt.Sprint(i))
		w.send(commands)
		eventually(t, "the session waits", func() bool { return s.holds.Load() == holdsCommands })
		held.release()
		w.want(valueOf(key) + replies)
		l = next
	}
	h.wantOnLanes("GET", 2101)
	eventually(t, "nothing is in flight", func() bool {
		return l.inFlight() == 0 && l.now("bytes") == 0 && s.commandsOnLanes() == 0 && s.bytesOnLanes() == 0
	})
}

func TestWindowOfALaneIsShared(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	const sessions, each = 6, 2000
	all := make([]*wire, sessions)
	for i := range all {
		all[i] = h.dial()
		all[i].get(fmt.Sprint(i))
	}
	l := h.lane()
	held := b.hold("held")
	all[0].send(cmd("GET", "held"))
	<-held.reached
	var wg sync.WaitGroup
	for i, w := range all {
		commands, replies := pipelineOf(each, fmt.Sprint(i))
		if i == 0 {
			replies = valueOf("held") + replies
		}
		wg.Go(func() { io.WriteString(w, commands) })
		wg.Go(func() {
			got := make([]byte, len(replies))
			if _, err := io.ReadFull(w.r, got); err != nil || string(got) != replies {
				t.Errorf("session %d got something else: %v", i, err)
			}
		})
	}
	eventually(t, "somebody waits", func() bool { return l.howManyWait() > 0 })
	if commands, bytes := l.inFlight(), l.now("bytes"); commands > laneCommands || bytes > laneBytes {
		t.Errorf("%d commands and %d bytes are in flight", commands, bytes)
	}
	for i, w := range all {
		if n := h.sessionOf(w).commandsOnLanes(); n > laneCommands/laneShare {
			t.Errorf("session %d has %d commands in flight", i, n)
		}
	}
	held.release()
	wg.Wait()
	h.wantOnLanes("GET", sessions*(each+1)+1)
	if b.lanes() != 1 {
		t.Errorf("%d lanes", b.lanes())
	}
}

// A session that waits for room on one lane and could find it on another does not leave its place behind, where it would
// stand in everybody's way.
func TestWaiterLeavesNoPlaceBehind(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w, other := h.dial(), h.dial()
	w.get("0")
	other.get("1")
	first := h.lane()
	second := first.another(t)
	first.occupy(laneCommands)
	second.occupy(2 * laneCommands)
	w.send(cmd("GET", "a"))
	eventually(t, "it waits for the first", func() bool { return first.howManyWait() == 1 })
	second.occupy(-2 * laneCommands)
	first.occupy(-1)
	w.want(valueOf("a"))
	eventually(t, "nobody waits", func() bool { return first.howManyWait() == 0 })
	first.occupy(1 - laneCommands)
	second.occupy(laneCommands)
	other.get("b")
	second.occupy(-laneCommands)
	h.wantOnLanes("GET", 4)
}

func TestWaiterThatEndsLeavesNoPlaceBehind(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w, other := h.dial(), h.dial()
	w.get("0")
	other.get("1")
	l := h.lane()
	l.occupy(laneCommands)
	w.send(cmd("GET", "a"))
	eventually(t, "it waits", func() bool { return l.howManyWait() == 1 })
	other.send(cmd("GET", "b"))
	eventually(t, "both wait", func() bool { return l.howManyWait() == 2 })
	h.sessionOf(w).end(closeDrain)
	eventually(t, "one waits", func() bool { return l.howManyWait() == 1 })
	l.occupy(-laneCommands)
	other.want(valueOf("b"))
	h.wantOnLanes("GET", 3)
}

func TestSessionWithALongNameOfKeysKeepsToItsShareOfBytes(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	l := h.lane()
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	long := strings.Repeat("x", 20000)
	var commands, replies strings.Builder
	for i := range 40 {
		key := long + fmt.Sprint(i)
		commands.WriteString(cmd("GET", key))
		replies.WriteString(valueOf(key))
	}
	go io.WriteString(w, commands.String()) // ends with the bytes, or the connection
	s := h.sessionOf(w)
	eventually(t, "it has its share", func() bool { return s.bytesOnLanes() > laneBytes/laneShare-netio.ChunkSize })
	if n := s.bytesOnLanes(); n > laneBytes/laneShare {
		t.Errorf("%d bytes are in flight", n)
	}
	if l.howManyWait() != 0 {
		t.Error("it waits for room, which there is")
	}
	held.release()
	w.want(valueOf("held") + replies.String())
	h.wantOnLanes("GET", 42)
}

// Whose turn it is, and who may submit nothing because its client does not read, lets the next one look: nothing else may
// happen on the lane.
func TestWaiterThatMaySubmitNothingPassesItsTurnOn(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w, other := h.dial(), h.dial()
	w.get("0")
	other.get("1")
	l, q := h.lane(), &h.sessionOf(w).queue
	l.occupy(laneCommands)
	w.send(cmd("GET", "a"))
	eventually(t, "it waits", func() bool { return l.howManyWait() == 1 })
	other.send(cmd("GET", "b"))
	eventually(t, "both wait", func() bool { return l.howManyWait() == 2 })
	unsent := func(n int) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.out.unsent += n
		q.notifyLocked()
	}
	unsent(2 * highUnsent)
	l.occupy(-laneCommands)
	other.want(valueOf("b"))
	unsent(-2 * highUnsent)
	w.want(valueOf("a"))
	if b.lanes() != 1 {
		t.Error("the lane had to close first, for being idle")
	}
}
