package certs

import (
	"slices"
	"testing"
)

// A bundle that is refused is never used, so what was found out with the bundle in use stays.
func TestABundleThatIsRefusedForgetsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	inUse := s.Snapshot().clients
	f.write("ca.crt", f.pair().cert)
	f.writePair("server", f.pair())
	if changed, err := s.Reload(); !changed || !slices.Equal(reasons(err), []string{"ca.crt no_ca"}) {
		t.Fatalf("changed %v: %v, want a refused bundle beside a new pair", changed, err)
	}
	f.write("ca.crt", slices.Concat([]byte("a comment\n"), f.ca.PEM()))
	f.reload(s)
	if s.Snapshot().clients != inUse {
		t.Error("what was found out about clients is gone, though the CAs never changed")
	}
}
