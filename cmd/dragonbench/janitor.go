package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// janitorCommand is the hidden subcommand that cleans up after a run, however it ended: finished, interrupted,
// panicked or killed.
const janitorCommand = "janitor"

// endTimeout is how long killed processes may take to be gone before their files are removed all the same.
const endTimeout = 10 * time.Second

// tidy makes a directory, prints its name, and learns from in which process groups live: +GROUP and -GROUP, a line
// each. EOF means that the run is over: the groups that are left are killed and the directory is removed.
func tidy(in io.Reader, out io.Writer) int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	dir, err := os.MkdirTemp("", "dragonbench")
	if err != nil {
		fmt.Fprintf(os.Stderr, "dragonbench: %v\n", err)
		return 1
	}
	fmt.Fprintln(out, dir)
	groups := map[int]bool{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		line := lines.Text()
		group, err := strconv.Atoi(line[min(1, len(line)):])
		if err != nil || group <= 1 {
			continue
		}
		groups[group] = line[0] == '+'
	}
	for group, alive := range groups {
		if alive {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
	}
	waitForEnd(groups)
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintf(os.Stderr, "dragonbench: %v\n", err)
		return 1
	}
	return 0
}

func waitForEnd(groups map[int]bool) {
	for end := time.Now().Add(endTimeout); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left := false
		for group, alive := range groups {
			left = left || alive && syscall.Kill(-group, 0) == nil
		}
		if !left {
			return
		}
	}
}
