package certs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// operation replaces the pair under a running Store in one of the ways that are out there.
type operation struct {
	name string
	// prepare lays the first pair out and may set other paths in f.opts.
	prepare func(f *fixture, first pemPair)
	// change brings the second pair; refused waits until a reload was refused
	// and proves that the first pair is still served.
	change func(f *fixture, next pemPair, refused func(reason string))
}

func inPlace(f *fixture, first pemPair) { f.writePair("server", first) }

func use(f *fixture, cert, key string) {
	f.opts.CertFiles, f.opts.KeyFiles = []string{f.path(cert)}, []string{f.path(key)}
}

// relink makes name a symlink to target by rename, as ln -sfn and the kubelet do.
func relink(f *fixture, target, name string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.Symlink(target, f.path(name+".new")))
	f.must(os.Rename(f.path(name+".new"), f.path(name)))
}

var operations = []operation{
	{"overwrite in place", inPlace, func(f *fixture, next pemPair, _ func(string)) {
		f.writePair("server", next)
	}},
	{"rename over", inPlace, func(f *fixture, next pemPair, _ func(string)) {
		f.rename("server.key", next.key)
		f.rename("server.crt", next.cert)
	}},
	{"certbot live links", func(f *fixture, first pemPair) {
		f.write("archive/x/cert1.pem", first.cert)
		f.write("archive/x/key1.pem", first.key)
		relink(f, "../../archive/x/cert1.pem", "live/x/cert.pem")
		relink(f, "../../archive/x/key1.pem", "live/x/key.pem")
		use(f, "live/x/cert.pem", "live/x/key.pem")
	}, func(f *fixture, next pemPair, _ func(string)) {
		f.write("archive/x/cert2.pem", next.cert)
		f.write("archive/x/key2.pem", next.key)
		relink(f, "../../archive/x/cert2.pem", "live/x/cert.pem")
		relink(f, "../../archive/x/key2.pem", "live/x/key.pem")
	}},
	{"target of links overwritten", func(f *fixture, first pemPair) {
		f.write("a/cert.pem", first.cert)
		f.write("b/key.pem", first.key)
		relink(f, f.path("a/cert.pem"), "c/link")
		relink(f, "c/link", "cert.pem")
		relink(f, f.path("b/key.pem"), "key.pem")
		use(f, "cert.pem", "key.pem")
	}, func(f *fixture, next pemPair, _ func(string)) {
		f.write("a/cert.pem", next.cert)
		f.write("b/key.pem", next.key)
	}},
	{"kubernetes swap", func(f *fixture, first pemPair) {
		kubelet(f, "..1", first)
		relink(f, "..data/tls.crt", "k/tls.crt")
		relink(f, "..data/tls.key", "k/tls.key")
		use(f, "k/tls.crt", "k/tls.key")
	}, func(f *fixture, next pemPair, _ func(string)) {
		kubelet(f, "..2", next)
		f.must(os.RemoveAll(f.path("k/..1")))
	}},
	{"linked directory swapped", func(f *fixture, first pemPair) {
		f.writePair("v1/server", first)
		relink(f, "v1", "current")
		use(f, "current/server.crt", "current/server.key")
	}, func(f *fixture, next pemPair, _ func(string)) {
		f.writePair("v2/server", next)
		relink(f, "v2", "current")
	}},
	{"key first", inPlace, func(f *fixture, next pemPair, refused func(string)) {
		f.rename("server.key", next.key)
		refused(ReasonMismatch)
		f.rename("server.crt", next.cert)
	}},
	{"certificate first", inPlace, func(f *fixture, next pemPair, refused func(string)) {
		f.rename("server.crt", next.cert)
		refused(ReasonMismatch)
		f.rename("server.key", next.key)
	}},
	{"half written", inPlace, func(f *fixture, next pemPair, refused func(string)) {
		f.write("server.crt", next.cert[:len(next.cert)/2])
		refused(ReasonParse)
		f.writePair("server", next)
	}},
	{"empty", inPlace, func(f *fixture, next pemPair, refused func(string)) {
		f.write("server.crt", nil)
		refused(ReasonParse)
		f.writePair("server", next)
	}},
	{"a directory in place of the file", inPlace, func(f *fixture, next pemPair, refused func(string)) {
		f.must(os.Remove(f.path("server.crt")))
		f.must(os.Mkdir(f.path("server.crt"), 0o755))
		refused(ReasonUnreadable)
		f.must(os.Remove(f.path("server.crt")))
		f.writePair("server", next)
	}},
	{"moved out and back", inPlace, func(f *fixture, next pemPair, refused func(string)) {
		f.must(os.Rename(f.path("server.crt"), f.path("away")))
		refused(ReasonUnreadable)
		f.must(os.Rename(f.path("away"), f.path("server.crt")))
		f.eventually("good again", func() bool { return f.log.count("hold again what is in use") == 1 })
		f.rename("server.key", next.key)
		f.rename("server.crt", next.cert)
	}},
	{"directory removed and made again", func(f *fixture, first pemPair) {
		f.writePair("x/y/server", first)
		use(f, "x/y/server.crt", "x/y/server.key")
	}, func(f *fixture, next pemPair, refused func(string)) {
		f.must(os.RemoveAll(f.path("x")))
		refused(ReasonUnreadable)
		f.writePair("x/y/server", next)
	}},
	{"another directory moved in", func(f *fixture, first pemPair) {
		f.writePair("x/server", first)
		use(f, "x/server.crt", "x/server.key")
	}, func(f *fixture, next pemPair, _ func(string)) {
		f.writePair("y/server", next)
		f.must(os.Rename(f.path("x"), f.path("z")))
		f.must(os.Rename(f.path("y"), f.path("x")))
	}},
}

// kubelet writes a new version of a mounted secret and swaps ..data to it.
func kubelet(f *fixture, version string, p pemPair) {
	f.t.Helper()
	f.write("k/"+version+"/tls.crt", p.cert)
	f.write("k/"+version+"/tls.key", p.key)
	relink(f, version, "k/..data")
}

func TestEveryWayToRotateIsServed(t *testing.T) {
	for _, mode := range []string{modeEvents, modePoll} {
		for _, op := range operations {
			t.Run(mode+"/"+op.name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				first, second := f.pair(), f.pair()
				op.prepare(f, first)
				s := f.open()
				interval := time.Hour // only an event can bring the change
				if mode == modePoll {
					interval = 10 * time.Millisecond
					s.reloader.newWatcher = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
				}
				addr := f.serve(s.TLSConfig())
				f.watch(s, interval)
				if got := s.Stats().WatchMode; got != mode {
					t.Fatalf("watch mode %q, want %q", got, mode)
				}
				f.wantServed(addr, first)
				op.change(f, second, func(reason string) {
					f.eventually("refused: "+reason, func() bool { return s.Stats().ReloadsFailed[reason] > 0 })
					f.wantServed(addr, first)
				})
				f.eventually("second pair in use", func() bool { return s.Snapshot().Certs[0].Serial == second.serial(t) })
				f.wantServed(addr, second)
				f.eventually("healthy", func() bool { return s.Stats().LastOK })
			})
		}
	}
}

func TestKubernetesSwapIsSeenEachTime(t *testing.T) {
	f := newFixture(t)
	p := f.pair()
	kubelet(f, "..0", p)
	relink(f, "..data/tls.crt", "k/tls.crt")
	relink(f, "..data/tls.key", "k/tls.key")
	use(f, "k/tls.crt", "k/tls.key")
	s := f.open()
	f.watch(s, time.Hour)
	for i := 1; i <= 4; i++ {
		p = f.pair()
		kubelet(f, fmt.Sprintf("..%d", i), p)
		f.must(os.RemoveAll(f.path(fmt.Sprintf("k/..%d", i-1))))
		f.eventually("swap seen", func() bool { return s.Snapshot().Certs[0].Serial == p.serial(t) })
	}
}

func TestADirectoryThatTookTheNameIsWatched(t *testing.T) {
	tests := map[string]func(f *fixture, p pemPair){
		"moved in": func(f *fixture, p pemPair) {
			f.writePair("y/server", p)
			f.must(os.Rename(f.path("x"), f.path("z")))
			f.must(os.Rename(f.path("y"), f.path("x")))
		},
		"made again": func(f *fixture, p pemPair) {
			f.must(os.RemoveAll(f.path("x")))
			f.writePair("x/server", p)
		},
	}
	for name, replace := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.writePair("x/server", f.pair())
			use(f, "x/server.crt", "x/server.key")
			s := f.open()
			f.watch(s, time.Hour)
			for _, change := range []func(pemPair){
				func(p pemPair) { replace(f, p) },
				func(p pemPair) { f.writePair("x/server", p) },
			} {
				p := f.pair()
				change(p)
				f.eventually("seen", func() bool { return s.Snapshot().Certs[0].Serial == p.serial(t) })
			}
		})
	}
}

// A directory above moves without an event: the next poll must watch the new one.
func TestSyncWatchesWhatTheNameMeansNow(t *testing.T) {
	f := newFixture(t)
	f.writePair("p/a/x/server", f.pair())
	use(f, "p/a/x/server.crt", "p/a/x/server.key")
	w := &watcher{reloader: f.open().reloader, dirs: map[string]os.FileInfo{}}
	defer w.close()
	w.sync()
	f.must(os.Rename(f.path("p/a"), f.path("p/b")))
	f.writePair("p/a/x/server", f.pair())
	w.sync()
	f.write("p/a/x/server.crt", nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if !w.wait(ctx, nil) {
		t.Error("no event from the new directory")
	}
}

func TestABusyDirectoryCannotDelayAReload(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	f.watch(s, time.Hour)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				_ = os.WriteFile(f.path("noise"), nil, 0o600)
			}
		}
	})
	defer busy.Wait()
	defer close(stop)
	next := f.pair()
	f.rename("server.key", next.key)
	f.rename("server.crt", next.cert)
	f.eventually("new pair in use", func() bool { return s.Snapshot().Certs[0].Serial == next.serial(t) })
}

func TestWatchPollsWhileEventsFailAndSaysSoOnce(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	var failing atomic.Bool
	var tries atomic.Int32
	failing.Store(true)
	s.reloader.newWatcher = func() (*fsnotify.Watcher, error) {
		tries.Add(1)
		if failing.Load() {
			return nil, syscall.EMFILE
		}
		return fsnotify.NewWatcher()
	}
	f.watch(s, 5*time.Millisecond)
	f.eventually("several tries", func() bool { return tries.Load() > 3 })
	if got := s.Stats().WatchMode; got != modePoll {
		t.Errorf("watch mode %q, want %q", got, modePoll)
	}
	if got := f.log.count("polling only"); got != 1 {
		t.Errorf("said %d times, want once", got)
	}
	failing.Store(false)
	f.eventually("events", func() bool { return s.Stats().WatchMode == modeEvents })
}

func TestWatchPollsWhenNoWatchCanBeAdded(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	s.reloader.newWatcher = func() (*fsnotify.Watcher, error) {
		w, err := fsnotify.NewWatcher()
		if err == nil {
			err = w.Close() // Add now fails, as with a full table
		}
		return w, err
	}
	f.watch(s, 5*time.Millisecond)
	next := f.pair()
	f.writePair("server", next)
	f.eventually("new pair in use", func() bool { return s.Snapshot().Certs[0].Serial == next.serial(t) })
	if got := s.Stats().WatchMode; got != modePoll {
		t.Errorf("watch mode %q, want %q", got, modePoll)
	}
}

func TestHandshakesNeverFailUnderReloads(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 4)
	for range cap(failed) {
		clients.Go(func() {
			for ctx.Err() == nil {
				if _, err := dial(addr, f.clientConfig()); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	for range 30 {
		f.writePair("server", f.pair())
		if changed, err := s.Reload(); !changed || err != nil {
			t.Errorf("reload: changed %v, %v", changed, err)
		}
	}
	cancel()
	clients.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if got := s.Snapshot().Generation; got != 31 {
		t.Errorf("generation %d, want 31", got)
	}
}

func TestWhatNeverSettlesIsRefused(t *testing.T) {
	f := newFixture(t)
	f.write("still", []byte("x"))
	reads, settles := 0, 1000
	read := func() contents {
		reads++
		f.write("busy", fmt.Append(nil, min(reads, settles)))
		return readOnce([]string{f.path("busy"), f.path("still")})
	}
	c := settle(read)
	if _, err := c.get(f.path("busy")); !errors.Is(err, errUnsettled) || reasonOf(err) != ReasonUnreadable {
		t.Errorf("got %v, want %v", err, errUnsettled)
	}
	if _, err := c.get(f.path("still")); err != nil {
		t.Errorf("the other file: %v", err)
	}
	reads, settles = 0, 3
	if got, err := settle(read).get(f.path("busy")); string(got) != "3" || err != nil {
		t.Errorf("got %q, %v; want what two reads agreed on", got, err)
	}
}
