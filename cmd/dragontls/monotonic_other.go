//go:build !linux

package main

// monotonicMicroseconds reports false: only systemd asks for this time.
func monotonicMicroseconds() (int64, bool) { return 0, false }
