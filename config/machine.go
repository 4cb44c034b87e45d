package config

import (
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

func thisMachine() machine {
	return machine{descriptors: descriptorLimit(), memory: memoryOf(os.DirFS("/"))}
}

// memoryOf is the least of the machine's memory and the limits of this process's
// cgroup and those above it, in a file system that has proc and sys; 0 when
// nothing is known (not Linux).
func memoryOf(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	consider := func(n int64, err error) {
		// v1 says "no limit" with a huge number, v2 with "max", which is no number.
		if err == nil && n > 0 && n < least {
			least = n
		}
	}
	consider(machineMemory(root))
	for _, file := range memoryLimitFiles(root) {
		text, err := fs.ReadFile(root, file)
		if err != nil {
			continue
		}
		consider(strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64))
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

func machineMemory(root fs.FS) (int64, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fs.ErrNotExist
}

// memoryLimitFiles names the files that may limit us, from proc/self/cgroup
// (cgroups(7)): "0::/path" is v2, "4:memory:/path" v1. Inside a container the path
// may be one of the host's that is not mounted here, so every parent is tried,
// up to the root of the mount, which is then our own group.
func memoryLimitFiles(root fs.FS) []string {
	text, _ := fs.ReadFile(root, "proc/self/cgroup")
	var files []string
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, file := "", ""
		switch {
		case parts[1] == "":
			mount, file = "sys/fs/cgroup", "memory.max"
		case strings.Contains(","+parts[1]+",", ",memory,"):
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			files = append(files, path.Join(mount, dir, file))
			if dir == "/" {
				break
			}
		}
	}
	return files
}
