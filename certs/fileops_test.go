//go:build unix

package certs

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/reload"

	"github.com/fsnotify/fsnotify"
)

// A fileOperation changes the files of a watched Store in one of the ways that are out there.
type fileOperation struct {
	name string
	// prepare lays the first pair out and may set other paths in o.opts.
	prepare func(o *observed, first pemPair)
	// change says step by step what comes of it: refused, unchanged, served.
	change func(o *observed, next pemPair)
	// passing are the reasons that a read between two writes of change may meet. All others
	// that change does not name must not be counted.
	passing   []string
	pollOnly, // it makes no event in any directory on the way to the files
	unprivileged bool // root may read everything
}

func TestFileOperations(t *testing.T) {
	for _, mode := range []string{reload.ModeEvents, reload.ModePoll} {
		t.Run(mode, func(t *testing.T) {
			for _, op := range fileOperations {
				if op.pollOnly && mode != reload.ModePoll {
					continue
				}
				t.Run(op.name, func(t *testing.T) {
					if op.unprivileged && os.Getuid() == 0 {
						inAnotherProcess(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
						return
					}
					t.Parallel()
					o := observe(t, op.prepare, mode)
					next := o.pair()
					op.change(o, next)
					o.wantCounts(op.passing)
					// Whatever it was, what comes next is seen as well.
					last := o.pair()
					o.must(os.WriteFile(o.opts.KeyFiles[0], last.key, 0o600))
					o.must(os.WriteFile(o.opts.CertFiles[0], last.cert, 0o600))
					o.served(last)
					o.end()
				})
			}
		})
	}
}

// observed is a Store that watches its files, while a client connects again and again.
type observed struct {
	*fixture
	store   *Store
	addr    string
	current pemPair
	order   []string          // the serials that were in use, one after the other
	reasons map[string]uint64 // of faults that change has named
	end     func()            // stops the client and judges what it saw
}

func observe(t *testing.T, prepare func(*observed, pemPair), mode string) *observed {
	t.Helper()
	o := &observed{fixture: newFixture(t), reasons: map[string]uint64{}}
	o.current = o.pair()
	prepare(o, o.current)
	o.order = []string{o.current.serial(t)}
	o.store = o.open()
	interval := time.Hour // only an event can bring a change
	if mode == reload.ModePoll {
		interval = 10 * time.Millisecond
		o.store.files.NewWatcher = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
	}
	o.addr = o.serve(o.store.TLSConfig())
	o.watch(o.store, interval)
	if got := o.store.Stats().WatchMode; got != mode {
		t.Fatalf("watch mode %q, want %q", got, mode)
	}
	o.wantServed(o.addr, o.current)
	o.connect()
	return o
}

// connect lets a client connect until end, which wants that it never failed and never saw an old certificate after a new one.
func (o *observed) connect() {
	stop, done := make(chan struct{}), make(chan struct{})
	var seen []string
	var failed error
	config := o.clientConfig()
	go func() { // ends with stop; end waits for it
		defer close(done)
		for failed == nil {
			select {
			case <-stop:
				return
			default:
			}
			cs, err := dial(o.addr, config)
			if failed = err; err != nil {
				return
			}
			seen = append(seen, cs.PeerCertificates[0].SerialNumber.Text(16))
		}
	}()
	stopped := false
	halt := func() {
		if !stopped {
			stopped = true
			close(stop)
			<-done
		}
	}
	o.t.Cleanup(halt)
	o.end = func() {
		o.t.Helper()
		halt()
		if failed != nil || len(seen) == 0 {
			o.t.Errorf("client: %v after %d handshakes", failed, len(seen))
		}
		rest := o.order
		for i, serial := range seen {
			at := slices.Index(rest, serial)
			if at < 0 {
				o.t.Fatalf("handshake %d of %d saw serial %s out of turn; in use were %v", i, len(seen), serial, o.order)
			}
			rest = rest[at:]
		}
	}
}

// served waits until p is in use, and wants that new clients get it.
func (o *observed) served(p pemPair) {
	o.t.Helper()
	o.order, o.current = append(o.order, p.serial(o.t)), p
	o.eventually("in use", func() bool { return o.store.Snapshot().Certs[0].Serial == p.serial(o.t) })
	o.wantServed(o.addr, p)
	// A reload is counted after what it brings is in use.
	o.eventually("counted", func() bool { s := o.store.Stats(); return s.LastOK && s.ReloadsOK >= uint64(len(o.order)-1) })
}

// refused waits until what the files hold was refused for a reason, and wants that it is counted and logged no second
// time, and that new clients get what they got before.
func (o *observed) refused(reason string) {
	o.t.Helper()
	o.reasons[reason]++
	o.eventually("refused: "+reason, func() bool { return o.store.Stats().ReloadsFailed[reason] >= o.reasons[reason] })
	// The one that was counted may have met half of the change. This one meets all of it.
	o.wantRefused(reason)
	before := o.store.Stats()
	o.wantRefused(reason)
	o.wantRefused(reason)
	if after := o.store.Stats(); !maps.Equal(after.ReloadsFailed, before.ReloadsFailed) || after.LastOK {
		o.t.Errorf("a fault that stays: counted %v, then %v, last ok %v", before.ReloadsFailed, after.ReloadsFailed, after.LastOK)
	}
	o.wantServed(o.addr, o.current)
}

func (o *observed) wantRefused(reason string) {
	o.t.Helper()
	if changed, err := o.store.files.Reload(false); changed || reasonOf(err) != reason {
		o.t.Fatalf("reload: changed %v, %v; want %s", changed, err, reason)
	}
}

// unchanged does what changes no content, and waits until that was read and left alone.
func (o *observed) unchanged(do func()) {
	o.t.Helper()
	before := o.store.Stats().ReloadsUnchanged
	do()
	o.eventually("read again", func() bool { s := o.store.Stats(); return s.LastOK && s.ReloadsUnchanged > before })
	o.wantServed(o.addr, o.current)
}

func (o *observed) wantCounts(passing []string) {
	o.t.Helper()
	stats := o.store.Stats()
	if want := len(o.order) - 1; stats.ReloadsOK != uint64(want) || o.log.count("certificates reloaded") != want {
		o.t.Errorf("%d reloads, %d log lines; want %d", stats.ReloadsOK, o.log.count("certificates reloaded"), want)
	}
	failed := 0
	for reason, n := range stats.ReloadsFailed {
		failed += int(n)
		if o.reasons[reason] == 0 && !slices.Contains(passing, reason) {
			o.t.Errorf("%d refused for %s", n, reason)
		}
	}
	if lines := o.log.count(refusedMessage); lines != failed {
		o.t.Errorf("%d log lines for %d refused reloads", lines, failed)
	}
	if o.log.count("PRIVATE") > 0 {
		o.t.Error("key in the log")
	}
}

const childVariable = "DRAGONTLS_TEST_CHILD"

// inAnotherProcess runs the test that calls it once more, in a process with other attributes.
func inAnotherProcess(t *testing.T, attr *syscall.SysProcAttr) {
	t.Helper()
	names := strings.Split(t.Name(), "/")
	for i, name := range names {
		names[i] = "^" + regexp.QuoteMeta(name) + "$"
	}
	// Another user cannot pass through the directory that go test builds in.
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.timeout=2m", "-test.run", strings.Join(names, "/"))
	cmd.SysProcAttr, cmd.Dir, cmd.Env = attr, "/", append(os.Environ(), "TMPDIR=/tmp", childVariable+"=1")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("such a process is not allowed here: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("as another process: %v\n%s", err, out)
	}
}
