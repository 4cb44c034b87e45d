package reload

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a directory, and what a Files of the test holds of it.
type fixture struct {
	t     *testing.T
	dir   string
	log   logBuffer
	inUse atomic.Value // string: what the last file of open held when it was applied last
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, dir: dir}
}

// errEmpty is what the Files of a test refuse.
var errEmpty = errors.New("empty")

// open opens the files of these names. They refuse an empty file, and have errEmpty say so.
func (f *fixture) open(names ...string) *Files {
	f.t.Helper()
	files := &Files{Log: zerolog.New(&f.log)}
	for _, name := range names {
		if name != "" {
			name = f.path(name)
		}
		files.Paths = append(files.Paths, name)
	}
	source := &Source{Name: "test", Reloaded: "content reloaded", Refused: "reload refused, the last content stays"}
	refuse := func(err error) Outcome { return Outcome{Held: []Held{{Source: source, Err: err}}} }
	files.Apply = func(c Contents) Outcome {
		source.Files = files.Paths
		var last []byte
		for _, path := range files.Paths {
			data, err := c.Get(path)
			if err != nil {
				return refuse(err)
			}
			if len(data) == 0 {
				return refuse(&Fault{File: path, Reason: ReasonParse, Err: errEmpty})
			}
			last = data
		}
		if f.inUse.Swap(string(last)) == string(last) {
			return Outcome{}
		}
		return Outcome{Changes: []Change{{Source: source, Describe: func(*zerolog.Event) {}}}}
	}
	f.must(files.Open())
	return files
}

// watch runs Watch until the test ends, and returns when its first reload is
// over: what is written from then on, only an event or a poll can bring.
func (f *fixture) watch(files *Files, interval time.Duration) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		files.Watch(ctx, interval)
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	before := files.Stats().ReloadsUnchanged
	f.eventually("watching", func() bool { return files.Stats().ReloadsUnchanged > before })
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not reached: %s", what)
		}
	}
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) write(name, data string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.WriteFile(f.path(name), []byte(data), 0o600))
}

// rename replaces a file as careful writers do.
func (f *fixture) rename(name, data string) {
	f.t.Helper()
	f.write(name+".tmp", data)
	f.must(os.Rename(f.path(name+".tmp"), f.path(name)))
}

// relink makes name a symlink to target by rename, as ln -sfn and the kubelet do.
func (f *fixture) relink(target, name string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.Symlink(target, f.path(name+".new")))
	f.must(os.Rename(f.path(name+".new"), f.path(name)))
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// logBuffer is what the Files of a test logged, a JSON line each.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}
