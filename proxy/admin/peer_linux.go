package admin

import (
	"fmt"
	"net"
	"syscall"
)

// peerOf names the process at the other end of a Unix socket, as it was when it connected.
func peerOf(c *net.UnixConn) string {
	var cred *syscall.Ucred
	var err error
	raw, rawErr := c.SyscallConn()
	if rawErr != nil {
		return unknownPeer
	}
	rawErr = raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if rawErr != nil || err != nil {
		return unknownPeer
	}
	return fmt.Sprintf("uid %d pid %d", cred.Uid, cred.Pid)
}
