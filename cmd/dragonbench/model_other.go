//go:build !linux

package main

import "time"

func sleepExactly() {}

func sleepFor(d time.Duration) { time.Sleep(d) }
