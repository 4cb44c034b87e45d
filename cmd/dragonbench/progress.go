package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress says what is measured now and how long it will take. On a terminal it is one line, written over and over;
// else a line for each row.
type progress struct {
	w        io.Writer
	terminal bool
	left     time.Duration // by the estimate
	passed   time.Duration // by the estimate
	began    time.Time
	row      string
}

func newProgress(f *os.File, estimate time.Duration) *progress {
	info, err := f.Stat()
	return &progress{w: f, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0, left: estimate, began: time.Now()}
}

func (p *progress) step(r *row, peer string, round, rounds int) {
	if p.terminal {
		text := fmt.Sprintf("%s left  %s: %s, round %d of %d", p.remaining(), r.ID, peer, round, rounds)
		fmt.Fprintf(p.w, "\r%-79.79s", text)
	} else if p.row != r.ID {
		fmt.Fprintf(p.w, "%s left  %s\n", p.remaining(), r.ID)
	}
	p.row = r.ID
}

// done corrects the estimate by how wrong it was so far.
func (p *progress) done(estimated time.Duration) {
	p.left -= estimated
	p.passed += estimated
}

func (p *progress) remaining() time.Duration {
	left := p.left
	if p.passed > 0 {
		left = time.Duration(float64(left) * float64(time.Since(p.began)) / float64(p.passed))
	}
	return max(0, left).Round(time.Second)
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", 79))
	}
}
