package certs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/reload"

	"github.com/fsnotify/fsnotify"
)

func withMode(t *testing.T, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLintModesOfKeysAndSecrets(t *testing.T) {
	for _, c := range []struct {
		mode        os.FileMode
		key, secret bool // right
	}{
		{0o600, true, true}, {0o400, true, true}, {0o440, true, true}, {0o640, true, true}, {0o660, false, true},
		{0o644, false, false}, {0o604, false, false}, {0o444, false, false}, {0o602, false, false}, {0o666, false, false}, {0o700, false, true},
	} {
		t.Run(fmt.Sprintf("%04o", c.mode), func(t *testing.T) {
			path := withMode(t, c.mode)
			want := func(right bool, id string) []string {
				if right {
					return nil
				}
				return []string{id}
			}
			wantIDs(t, LintKeys(path, "", path), want(c.key, "key_mode")...)
			wantIDs(t, LintSecrets(path, "", path), want(c.secret, "secret_mode")...)
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			wantIDs(t, LintKeys(link), want(c.key, "key_mode")...)
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	wantIDs(t, append(LintKeys(missing), LintSecrets(missing)...))
}

func TestLintOwnerOfKeys(t *testing.T) {
	const us, other = 1000, 1001
	for _, c := range []struct {
		name string
		access
		want []string
	}{
		{"ours", access{0o600, us, 1, false}, nil},
		{"root's", access{0o440, 0, 1, false}, nil},
		{"our group's", access{0o640, 0, 1, true}, nil},
		{"another group's", access{0o640, 0, 1, false}, []string{"key_mode"}},
		{"another user's", access{0o440, other, 1, false}, []string{"key_owner"}},
		{"another user's, lent to our group", access{0o640, other, 1, true}, nil},
		{"another user's, for all", access{0o644, other, 1, true}, []string{"key_mode", "key_owner"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLinter(LintOptions{})
			l.key("server.key", c.access, us)
			wantIDs(t, l.found, c.want...)
		})
	}
	for path, a := range owned([]string{withMode(t, 0o600)}) {
		if a.uid != os.Geteuid() || !a.groupIsOurs && a.gid == os.Getegid() || a.mode != 0o600 {
			t.Errorf("%s: got %+v, want it to be ours", path, a)
		}
	}
}

func TestLintReloadFindsNothingInAnOrdinaryDirectory(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	files := s.Files()
	for _, name := range []string{"server.crt", "server.key", "ca.crt"} {
		if !slices.Contains(files, f.path(name)) {
			t.Errorf("%s is missing in %q", name, files)
		}
	}
	wantIDs(t, LintReload(files))
}

func TestLintFindsAFileThatIsAMount(t *testing.T) {
	const path = "/etc/tls/server.crt"
	l := newLinter(LintOptions{})
	l.mounts([]string{path})
	wantIDs(t, l.found, "file_mounted")
	if l.found[0].Subject != path {
		t.Errorf("got %+v, want %s", l.found, path)
	}
}

func TestLintReloadReadsTheMountsOfThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /proc/self/mountinfo here")
	}
	wantIDs(t, LintReload([]string{"/proc"}), "file_mounted") // it is a mount everywhere, and stands for a file
}

func TestLintFindsMissingFileEvents(t *testing.T) {
	path := withMode(t, 0o600)
	closed := func() (*fsnotify.Watcher, error) {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			return nil, err
		}
		return w, w.Close() // each Add fails from now on
	}
	for name, c := range map[string]struct {
		newWatcher func() (*fsnotify.Watcher, error)
		cure       string
	}{
		"instances": {func() (*fsnotify.Watcher, error) {
			return nil, os.NewSyscallError("inotify_init1", syscall.EMFILE)
		}, "max_user_instances"},
		"watches": {func() (*fsnotify.Watcher, error) {
			return nil, os.NewSyscallError("inotify_add_watch", syscall.ENOSPC)
		}, "max_user_watches"},
		"a directory": {closed, "frequent enough"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLinter(LintOptions{})
			l.events((&reload.Files{Paths: []string{path}, NewWatcher: c.newWatcher}).TryEvents())
			wantIDs(t, l.found, "no_file_events")
			if !strings.Contains(l.found[0].Cure, c.cure) {
				t.Errorf("got %+v, want %q", l.found, c.cure)
			}
		})
	}
}

func TestLintFindsAClockThatIsBehind(t *testing.T) {
	older, newer := withMode(t, 0o600), withMode(t, 0o600)
	for path, ahead := range map[string]time.Duration{older: 10 * time.Minute, newer: 3 * time.Hour} {
		at := time.Now().Add(ahead)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	found := LintClock([]string{older, newer, withMode(t, 0o600)})
	wantIDs(t, found, "clock_behind") // one clock, one finding
	if found[0].Subject != newer {
		t.Errorf("got %+v, want %s", found, newer)
	}
}

func TestLintTrustFindsWhatOthersMayChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]int{0o644: 0, 0o600: 0, 0o664: 0, 0o666: 1, 0o602: 1} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if found := LintTrust(path, "", path+".gone"); len(found) != want {
			t.Errorf("mode %04o: %v", mode, found)
		}
	}
}
