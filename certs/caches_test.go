package certs

import (
	"slices"
	"testing"
)

// A reload that is refused for another file's fault never uses its bundle, so what
// was found out with the bundle in use stays.
func TestABundleThatIsRefusedForgetsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	inUse := s.Snapshot().clients
	f.write("ca.crt", newCA(t, "another").PEM())
	f.write("server.key", f.pair().key) // of another certificate
	if _, err := s.Reload(); err == nil || !slices.Contains(reasons(err), "server.crt mismatch") {
		t.Fatalf("got %v, want a refused reload", err)
	}
	f.write("ca.crt", f.ca.PEM())
	f.writePair("server", f.pair())
	f.reload(s)
	if s.Snapshot().clients != inUse {
		t.Error("what was found out about clients is gone, though the bundle never changed")
	}
}
