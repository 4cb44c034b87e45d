package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux.
const clockTick = 10 * time.Millisecond

// supported says whether this system tells what a run needs to know.
func supported() error {
	if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
		return fmt.Errorf("%w\nCPU time and memory of the peers are read from /proc: Linux 4.14 or later", err)
	}
	return nil
}

// cpuTimes is what the machine did so far.
type cpuTimes struct {
	groups map[int]time.Duration // CPU time of each process group, its ended children included
	self   time.Duration
	busy   time.Duration // all CPUs, everybody
	steal  time.Duration // taken by the hypervisor
	at     time.Time
}

func readCPU() cpuTimes {
	c := cpuTimes{groups: map[int]time.Duration{}, at: time.Now()}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		// The name, in parentheses, may hold anything. Behind it: state, ppid, pgrp, ...; utime is field 14 of proc(5).
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 15 {
			continue
		}
		group, _ := strconv.Atoi(fields[2])
		c.groups[group] += ticks(fields[11:15]...)
	}
	var self syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &self) == nil {
		c.self = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	}
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		line, _, _ := strings.Cut(string(b), "\n")
		// cpu user nice system idle iowait irq softirq steal
		if f := strings.Fields(line); len(f) >= 9 {
			c.busy = ticks(f[1], f[2], f[3], f[6], f[7])
			c.steal = ticks(f[8])
		}
	}
	return c
}

func ticks(fields ...string) (sum time.Duration) {
	for _, f := range fields {
		n, _ := strconv.ParseInt(f, 10, 64)
		sum += time.Duration(n) * clockTick
	}
	return sum
}

// groupPss is the proportional set size of a process group, in bytes: what it would give back by ending.
func groupPss(group int) int64 { return sumOf(group, "smaps_rollup", "Pss:") }

// groupPeakRSS is the most that the processes of a group ever had in memory, each by itself, in bytes.
func groupPeakRSS(group int) int64 { return sumOf(group, "status", "VmHWM:") }

// sumOf adds up what a file in /proc says of each process of a group: a number of KiB after a name.
func sumOf(group int, file, name string) (sum int64) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) {
			sum += kibibytes(filepath.Join(filepath.Dir(path), file), name)
		}
	}
	return sum
}

func kibibytes(path, name string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

func readMachine() (m machine) {
	m.Kernel = firstLine("/proc/sys/kernel/osrelease")
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if load, _, ok := strings.Cut(firstLine("/proc/loadavg"), " "); ok {
		m.LoadBefore, _ = strconv.ParseFloat(load, 64)
	}
	if f := strings.Fields(firstLine("/proc/meminfo")); len(f) > 1 {
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		m.Memory = kib << 10
	}
	return m
}

func firstLine(path string) string {
	b, _ := os.ReadFile(path) // "" for what is not there
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
