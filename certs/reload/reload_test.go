package reload

import (
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
)

func TestARefusedFileLeavesTheLastContentInUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("file", "1")
	files := f.open("file", "", "file")
	if want := []string{f.path("file")}; !slices.Equal(files.Paths, want) {
		t.Errorf("reads %q, want %q", files.Paths, want)
	}
	var told []string
	files.OnChange(func() { told = append(told, "change") })
	files.OnFault(func(err error) {
		if err == nil {
			told = append(told, "over")
		} else {
			told = append(told, reasonOf(err))
		}
	})
	reload := func(forced bool, want error, inUse string) {
		t.Helper()
		before := f.inUse.Load()
		changed, err := files.Reload(forced)
		if !errors.Is(err, want) || f.inUse.Load() != inUse || changed != (before != inUse) {
			t.Errorf("reload: changed %v, %v, in use %q; want %v, %q", changed, err, f.inUse.Load(), want, inUse)
		}
	}
	reload(false, nil, "1")
	f.write("file", "")
	reload(false, errEmpty, "1")
	reload(false, errEmpty, "1") // neither counted nor logged again
	reload(true, errEmpty, "1")  // the operator who asks is told again
	f.must(os.Remove(f.path("file")))
	reload(false, os.ErrNotExist, "1")
	f.write("file", "1")
	reload(false, nil, "1")
	f.write("file", "2")
	reload(false, nil, "2")
	if want := []string{ReasonParse, ReasonUnreadable, "over", "change"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	s := files.Stats()
	if s.ReloadsOK != 1 || s.ReloadsUnchanged != 2 || !s.LastOK || !maps.Equal(s.ReloadsFailed, map[string]uint64{ReasonParse: 2, ReasonUnreadable: 1}) {
		t.Errorf("stats %+v", s)
	}
	for text, want := range map[string]int{"certificates loaded": 1, "reload refused": 3, "hold what is in use": 1, "content reloaded": 1} {
		if got := f.log.count(text); got != want {
			t.Errorf("%q was logged %d times, want %d", text, got, want)
		}
	}
}
