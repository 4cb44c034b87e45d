package reload

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

func TestWhatNeverSettlesIsRefused(t *testing.T) {
	f := newFixture(t)
	f.write("still", "x")
	reads, settles := 0, 1000
	read := func() reading {
		reads++
		f.write("busy", fmt.Sprint(min(reads, settles)))
		return readOnce([]string{f.path("busy"), f.path("still")})
	}
	c := settle(read).contents
	if _, err := c.Get(f.path("busy")); !errors.Is(err, errUnsettled) || reasonOf(err) != ReasonUnreadable {
		t.Errorf("got %v, want %v", err, errUnsettled)
	}
	if _, err := c.Get(f.path("still")); err != nil {
		t.Errorf("the other file: %v", err)
	}
	reads, settles = 0, 3
	if got, err := settle(read).contents.Get(f.path("busy")); string(got) != "3" || err != nil {
		t.Errorf("got %q, %v; want what two reads agreed on", got, err)
	}
}

func TestAFileThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("large", "")
	f.must(os.Truncate(f.path("large"), maxFileSize+1))
	data, err := readOnce([]string{f.path("large")}).contents.Get(f.path("large"))
	if !errors.Is(err, errTooLarge) || reasonOf(err) != ReasonUnreadable || data != nil {
		t.Errorf("got %d bytes, %v; want %v", len(data), err, errTooLarge)
	}
}
