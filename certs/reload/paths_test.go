package reload

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestWatchDirsFollowEveryLink(t *testing.T) {
	f := newFixture(t)
	f.write("data/v1/x", "")
	f.relink("v1", "data/current")
	f.relink("../data/current/x", "live/x")
	f.relink(f.path("live"), "l")
	_, got := walk(f.path("l/x"))
	want := []string{f.path(""), f.path("live"), f.path("data"), f.path("data/v1")}
	for i := range want {
		want[i] = filepath.Clean(want[i])
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("directories %q, want %q", got, want)
	}
}

func TestWatchDirsUseTheNearestAncestorOfWhatIsMissing(t *testing.T) {
	f := newFixture(t)
	_, got := walk(f.path("no/such/file"))
	if want := []string{f.dir}; !reflect.DeepEqual(got, want) {
		t.Errorf("directories %q, want %q", got, want)
	}
}

func TestWalkEndsInALoopOfLinks(t *testing.T) {
	f := newFixture(t)
	f.must(os.Symlink("b", f.path("a")))
	f.must(os.Symlink("a", f.path("b")))
	if _, dirs := walk(f.path("a")); len(slices.Compact(dirs)) != 1 {
		t.Errorf("directories %q, want one", dirs)
	}
}

func TestMountedFilesAreFound(t *testing.T) {
	f := newFixture(t)
	f.write("a file", "")
	f.write("plain", "")
	f.write("run/below", "")
	f.relink("a file", "link")
	mountinfo := "29 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n" +
		"31 29 8:1 /srv/run " + f.path("run") + " rw,relatime - tmpfs tmpfs rw\n" +
		"40 29 8:1 /x " + strings.ReplaceAll(f.path("a file"), " ", `\040`) + " rw - ext4 /dev/sda1 rw\n"
	got := mountPoints(strings.NewReader(mountinfo), []string{f.path("plain"), f.path("a file"), f.path("link"), f.path("run/below")})
	if want := []string{f.path("a file"), f.path("link")}; !reflect.DeepEqual(got, want) {
		t.Errorf("mounted %q, want %q", got, want)
	}
}
