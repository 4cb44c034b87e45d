//go:build unix

package reload

import (
	"errors"
	"syscall"
	"testing"
)

// Nobody will ever write into it.
func TestANamedPipeIsRefusedAndNotWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.must(syscall.Mkfifo(f.path("pipe"), 0o600))
	if _, err := readOnce([]string{f.path("pipe")}).contents.Get(f.path("pipe")); !errors.Is(err, errNotRegular) {
		t.Errorf("got %v, want %v", err, errNotRegular)
	}
}
