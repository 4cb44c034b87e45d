package reload

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLinks is where the kernel gives up on a chain of symlinks, too (path_resolution(7)).
const maxLinks = 40

// walk follows path link by link. steps are path itself and every path that a symlink
// on the way leads to; the last one holds no link. dirs are the directories in which an
// entry could change where path leads: those that hold a link on the way, and the one
// that holds the file. If something is missing, the last is its nearest existing ancestor.
func walk(path string) (steps, dirs []string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, nil
	}
	root := filepath.VolumeName(path) + string(filepath.Separator)
	cur, rest := root, elements(strings.TrimPrefix(path, root))
	steps = append(steps, path)
	for links := 0; len(rest) > 0; {
		next := filepath.Join(cur, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return steps, append(dirs, cur)
		case info.Mode()&os.ModeSymlink != 0:
			dirs = append(dirs, cur)
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return steps, dirs
			}
			if filepath.IsAbs(target) {
				cur, target = root, strings.TrimPrefix(target, root)
			}
			rest = append(elements(target), rest...)
			steps = append(steps, filepath.Join(append([]string{cur}, rest...)...))
		case len(rest) == 0:
			dirs = append(dirs, cur)
		default:
			cur = next
		}
	}
	return steps, dirs
}

// elements does not use filepath.Clean: "link/.." is the parent of where link leads.
func elements(path string) []string {
	return slices.DeleteFunc(strings.Split(path, string(filepath.Separator)), func(e string) bool { return e == "" || e == "." })
}

// watchDirs are the directories to watch for paths, sorted.
func watchDirs(paths []string) []string {
	var all []string
	for _, path := range paths {
		_, dirs := walk(path)
		all = append(all, dirs...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Mounted returns those of Paths that are mount points themselves: a container sees the
// file that was mounted, whatever is renamed over it outside. It finds them on Linux only.
func (f *Files) Mounted() []string {
	mountinfo, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil // not Linux, or no /proc: nothing to say
	}
	defer mountinfo.Close()
	return mountPoints(mountinfo, f.Paths)
}

// mountPoints returns those of paths that mountinfo (proc_pid_mountinfo(5)) names: the mount
// point is the fifth field.
func mountPoints(mountinfo io.Reader, paths []string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	mounted := map[string]bool{}
	for lines := bufio.NewScanner(mountinfo); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			mounted[unescape.Replace(fields[4])] = true
		}
	}
	var found []string
	for _, path := range paths {
		steps, _ := walk(path)
		if slices.ContainsFunc(steps, func(s string) bool { return mounted[s] }) {
			found = append(found, path)
		}
	}
	return found
}
