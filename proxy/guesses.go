package proxy

import (
	"hash/maphash"
	"sync"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

const (
	// freeGuesses is how many wrong passwords of a client, in whatever sessions, are answered at once.
	freeGuesses = maxWrongPasswords
	// slowestGuess is how often the wait before an answer has been doubled at most: it is then as long as the longest pause
	// after one.
	slowestGuess = maxWrongPasswords - 1
	// guessCounts bounds the memory for counting, not the number of clients.
	guessCounts = 1024
)

// guesses counts the wrong passwords of each client, in all its sessions together. Clients share a count if their keys have the
// same hash. Then one may wait for the guesses of another, but only if its own password is wrong too. The zero value does not
// work, see newGuesses. Safe for concurrent use.
type guesses struct {
	forgetAfter time.Duration // a wrong password counts for so long, one after the other
	seed        maphash.Seed

	mu sync.Mutex
	// guarded by mu
	of [guessCounts]guessCount
}

type guessCount struct {
	n     int           // at most freeGuesses + slowestGuess
	since clock.Instant // when the count was last lowered, or began
}

func newGuesses(forgetAfter time.Duration) *guesses {
	return &guesses{forgetAfter: forgetAfter, seed: maphash.MakeSeed()}
}

// add counts a wrong password of a client. It returns 0 if that is to be answered at once, and otherwise how slowly, up to
// slowestGuess: each step is a wait twice as long as the one before.
func (g *guesses) add(client netio.QuotaKey, now clock.Instant) (slowness int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &g.of[maphash.Comparable(g.seed, client)%guessCounts]
	forgotten := int(max(0, now.Sub(c.since)) / g.forgetAfter)
	if forgotten >= c.n {
		*c = guessCount{since: now}
	} else {
		c.n -= forgotten
		c.since = c.since.Add(time.Duration(forgotten) * g.forgetAfter)
	}
	c.n = min(c.n+1, freeGuesses+slowestGuess)
	return max(0, c.n-freeGuesses)
}
