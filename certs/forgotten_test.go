package certs

import (
	"crypto/tls"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
	"weak"

	"dragontls/certs/identity"
	"dragontls/certs/pki"

	"github.com/rs/zerolog"
)

// held reports whether something of a snapshot is still reachable, by its name.
type held map[string]func() bool

func reachable[T any](p *T) func() bool {
	w := weak.Make(p)
	return func() bool { return w.Value() != nil }
}

func (h held) snapshot(n int, s *Snapshot) {
	for name, reached := range map[string]func() bool{
		"snapshot":        reachable(s),
		"config":          reachable[tls.Config](s.config),
		"pair":            reachable[pair](s.pairs[0]),
		"certificate":     reachable(s.pairs[0].tls.Leaf),
		"client bundle":   reachable[bundle](s.clients),
		"client CA":       reachable(s.clients.certs[1]),
		"revocation list": reachable[revocation](s.revocation),
		"users":           reachable[identity.Users](s.login.users),
	} {
		h[fmt.Sprintf("%s %d", name, n)] = reached
	}
}

// left returns the names of what is still reachable after a collection.
func (h held) left() []string {
	runtime.GC()
	maps.DeleteFunc(h, func(_ string, reached func() bool) bool { return !reached() })
	return slices.Sorted(maps.Keys(h))
}

// Reloads come for years. A Store holds nothing of what a reload replaced once the
// handshakes that began with it are over, nor of the files that it refused.
func TestReloadsLeaveNothingOfWhatTheyReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("password", []byte("secret\n"))
	f.opts.Login.UsersFile = f.path("users.yaml")
	renew := func(n int) {
		f.write("ca.crt", slices.Concat(f.ca.PEM(), newCA(t, fmt.Sprint("other ", n)).PEM()))
		f.withCRL(f.revoking(f.ca, f.clientOf(f.ca)))
		f.write("users.yaml", fmt.Appendf(nil, "users:\n  - {match: ['cn:client'], user: web%d, password_file: password}\n", n))
		f.writePair("server", f.pair())
	}
	renew(0)
	s := f.open()
	config := f.clientConfig()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	replaced := held{}
	for n := range 5 {
		for range 2 {
			cs, err := f.admitted(s, config)
			f.must(err)
			_, err = s.Snapshot().Recheck(&cs)
			f.must(err)
		}
		replaced.snapshot(n, s.Snapshot())
		f.write("server.key", f.pair().key)
		if _, err := s.Reload(); reasonOf(err) != ReasonMismatch {
			t.Fatalf("a pair that does not match: %v", err)
		}
		renew(n + 1)
		f.reload(s)
	}
	f.eventually("nothing replaced is held", func() bool { return len(replaced.left()) == 0 })

	current := held{}
	current.snapshot(5, s.Snapshot())
	want := slices.Sorted(maps.Keys(current))
	if left := current.left(); !slices.Equal(left, want) {
		t.Errorf("of what is in use, only %q is held, want %q", left, want)
	}
	runtime.KeepAlive(s)
}

// The same holds for what the backend is shown.
func TestReloadsOfAClientLeaveNothingOfWhatTheyReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	addr := f.backend(f.ca)
	renew := func() { f.writePair("client", f.issue(f.ca, pki.Leaf{CN: "proxy", Client: true})) }
	renew()
	c, err := OpenClient(ClientOptions{CAFile: f.path("ca.crt"), CertFile: f.path("client.crt"), KeyFile: f.path("client.key"),
		ServerName: "localhost", Log: zerolog.New(f.log)})
	f.must(err)
	replaced := held{}
	for n := range 5 {
		f.dial(addr, c.TLSConfig())
		f.dial(addr, c.TLSConfig())
		replaced[fmt.Sprint("state ", n)] = reachable(c.current.Load())
		replaced[fmt.Sprint("config ", n)] = reachable(c.current.Load().config)
		f.write("ca.crt", slices.Concat(f.ca.PEM(), newCA(t, fmt.Sprint("other ", n)).PEM()))
		renew()
		if changed, err := c.Reload(); !changed || err != nil {
			t.Fatalf("changed %v: %v", changed, err)
		}
	}
	f.eventually("nothing replaced is held", func() bool { return len(replaced.left()) == 0 })
	runtime.KeepAlive(c)
}
