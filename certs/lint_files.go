package certs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"dragontls/certs/reload"
)

// Files are those that s reads, each once.
func (s *Store) Files() []string { return slices.Clone(s.files.Paths) }

// Files are those that c reads, each once.
func (c *Client) Files() []string { return slices.Clone(c.files.Paths) }

// clockTolerance is what the clocks of two machines that share files may differ by.
const clockTolerance = time.Minute

// LintKeys finds private keys that other users may read or replace. Empty paths and
// files that are not there do not count.
func LintKeys(paths ...string) []Finding {
	l := newLinter(LintOptions{})
	for path, a := range owned(paths) {
		l.key(path, a, os.Geteuid())
	}
	return l.found
}

// key judges the access to a key that the user us reads.
func (l *linter) key(path string, a access, us int) {
	mode := a.mode
	switch {
	case mode == 0o600, mode == 0o400, mode == 0o440, mode == 0o640 && a.groupIsOurs:
	case mode&0o007 != 0:
		l.add(SeverityError, "key_mode", path, fmt.Sprintf("every user of this machine has access to the key: mode %04o", mode), cureOfMode(path))
	case mode == 0o640:
		l.add(SeverityError, "key_mode", path, fmt.Sprintf("group %d, which is not ours, may read the key: mode 0640", a.gid), cureOfMode(path))
	default:
		l.add(SeverityError, "key_mode", path, fmt.Sprintf("mode %04o of the key: 0600, 0400, 0440 or, where the group is ours, 0640 are right", mode), cureOfMode(path))
	}
	lent := a.groupIsOurs && (mode == 0o640 || mode == 0o440) // by an owner who gave it to our group on purpose
	if a.uid != us && a.uid != 0 && !lent {
		l.add(SeverityWarning, "key_owner", path, fmt.Sprintf("user %d, who may replace the key, is neither root nor us (user %d)", a.uid, us),
			"chown it to root or to the user that serves; run check as that user")
	}
}

func cureOfMode(path string) string {
	return fmt.Sprintf("chmod 0600 %s; for a Kubernetes secret, fsGroup in the securityContext of the pod and defaultMode: 0440", path)
}

// LintSecrets says which files with passwords, tokens or master secrets everybody may read.
func LintSecrets(paths ...string) []Finding {
	l := newLinter(LintOptions{})
	for path, a := range owned(paths) {
		if a.mode&0o007 != 0 {
			l.add(SeverityError, "secret_mode", path, fmt.Sprintf("every user of this machine has access to the secret: mode %04o", a.mode), cureOfMode(path))
		}
	}
	return l.found
}

// LintTrust finds files that decide which clients are trusted and that other users may change.
func LintTrust(paths ...string) []Finding {
	l := newLinter(LintOptions{})
	for path, a := range owned(paths) {
		switch {
		case a.mode&0o002 != 0:
			l.add(SeverityError, "file_writable", path, fmt.Sprintf("every user of this machine may change who is trusted: mode %04o", a.mode), "chmod 0644 "+path)
		case a.mode&0o020 != 0 && !a.groupIsOurs:
			l.add(SeverityWarning, "file_writable", path, fmt.Sprintf("group %d, which is not ours, may change who is trusted: mode %04o", a.gid, a.mode), "chmod 0644 "+path)
		}
	}
	return l.found
}

// access is what the owner, the group and others may do with a file.
type access struct {
	mode        os.FileMode // permissions only
	uid, gid    int
	groupIsOurs bool
}

// owned yields each path once, with what the system knows of it.
func owned(paths []string) func(yield func(string, access) bool) {
	groups, _ := os.Getgroups() // fails where there are none
	groups = append(groups, os.Getegid())
	return func(yield func(string, access) bool) {
		for i, path := range paths {
			if path == "" || slices.Contains(paths[:i], path) {
				continue
			}
			info, err := os.Stat(path)
			if err != nil {
				continue
			}
			uid, gid, ok := reload.Owner(info)
			if ok && !yield(path, access{info.Mode().Perm(), uid, gid, slices.Contains(groups, gid)}) {
				return
			}
		}
	}
}

// LintReload says what keeps a change of the files from being seen, at once or
// ever. It sets up file events for them and takes them down again.
func LintReload(paths []string) []Finding {
	l := newLinter(LintOptions{})
	files := &reload.Files{Paths: paths}
	l.mounts(files.Mounted())
	l.events(files.TryEvents())
	return l.found
}

func (l *linter) mounts(mounted []string) {
	for _, path := range mounted {
		l.add(SeverityWarning, "file_mounted", path, "the file is itself a mount: a replacement outside is never seen here", "mount its directory instead")
	}
}

// events finds that there are no file events for dir, or none at all if dir is empty.
func (l *linter) events(dir string, err error) {
	if err == nil {
		return
	}
	cure := "none is needed where the poll is frequent enough"
	switch {
	case errors.Is(err, syscall.EMFILE):
		cure = "raise fs.inotify.max_user_instances (sysctl) or the limit of open files"
	case errors.Is(err, syscall.ENOSPC):
		cure = "raise fs.inotify.max_user_watches (sysctl)"
	}
	l.add(SeverityWarning, "no_file_events", cmp.Or(dir, "file events"), fmt.Sprintf("no file events: %v; changes are seen by the poll only", err), cure)
}

// LintClock finds that the clock of this machine is behind the files that it reads.
func LintClock(paths []string) []Finding {
	l := newLinter(LintOptions{})
	l.clock(paths)
	return l.found
}

// clock compares the clock with the file that claims to be the newest.
func (l *linter) clock(paths []string) {
	newest, ahead := "", clockTolerance
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().Sub(l.Now) > ahead {
			newest, ahead = path, info.ModTime().Sub(l.Now)
		}
	}
	if newest != "" {
		l.add(SeverityWarning, "clock_behind", newest, fmt.Sprintf("the file was written %s in the future", duration(ahead)),
			"set the clock of this machine, or of the one that wrote the file: certificates are judged by it")
	}
}
