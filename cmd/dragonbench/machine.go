package main

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// machine is where the figures come from.
type machine struct {
	CPU        string    `json:"cpu"`
	CPUs       int       `json:"cpus"`
	Memory     int64     `json:"memory_bytes"`
	Kernel     string    `json:"kernel"`
	Go         string    `json:"go"`
	Date       time.Time `json:"date"`
	LoadBefore float64   `json:"load_before"` // load average of one minute when the run began
}

func thisMachine() machine {
	m := readMachine()
	m.CPUs, m.Go, m.Date = runtime.NumCPU(), runtime.Version(), time.Now().UTC().Truncate(time.Second)
	return m
}

const (
	// A load of this much per CPU before a run begins, or this much of the machine used by others while a window is
	// measured, is more than the differences that are looked for.
	busyLoad  = 0.3
	busyShare = 0.05
	// stealShare of the time taken by a hypervisor is as bad.
	stealShare = 0.02
)

func (m machine) warnings() (all []string) {
	if m.LoadBefore > busyLoad*float64(m.CPUs) {
		all = append(all, fmt.Sprintf("the machine was busy before the run (load average %.2f on %d CPUs): "+
			"these figures are worth little, run again when it is quiet", m.LoadBefore, m.CPUs))
	}
	if m.CPUs < 2 {
		all = append(all, "one CPU for client, proxy and backend: throughput says little")
	}
	return all
}

// wantedDescriptors is enough for every row.
const wantedDescriptors = 1 << 16

// raiseDescriptors lets us and all we start open as many files as the system allows. It returns the limit.
func raiseDescriptors() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Max < wantedDescriptors { // root may raise this limit too
		raised := syscall.Rlimit{Cur: wantedDescriptors, Max: wantedDescriptors}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			return uint64(raised.Cur), nil
		}
	}
	limit.Cur = limit.Max
	// Without this call the children would get the lower limit that we were started with: see os/rlimit.go.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return uint64(limit.Cur), nil
}
