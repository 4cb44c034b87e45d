//go:build !linux

package proxytest

import (
	"net"
	"time"
)

func drained(net.Conn) { time.Sleep(10 * time.Millisecond) }
