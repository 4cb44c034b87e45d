//go:build !linux

package main

import (
	"errors"
	"runtime"
	"time"
)

func supported() error {
	return errors.New("CPU time and memory of the peers are read from /proc, and " + runtime.GOOS + " has none\n" +
		"run it on Linux, for instance in a container: docker run --rm -it -v \"$PWD\":/src -w /src golang:1.26 go run ./cmd/dragonbench")
}

type cpuTimes struct {
	groups            map[int]time.Duration
	self, busy, steal time.Duration
	at                time.Time
}

func readCPU() cpuTimes      { return cpuTimes{} }
func groupPss(int) int64     { return 0 }
func groupPeakRSS(int) int64 { return 0 }
func readMachine() machine   { return machine{} }
