package admin

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf names the process at the other end of a Unix socket, as it was when it connected.
func peerOf(c *net.UnixConn) string {
	var cred *unix.Ucred
	var err error
	raw, rawErr := c.SyscallConn()
	if rawErr != nil {
		return unknownPeer
	}
	rawErr = raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if rawErr != nil || err != nil {
		return unknownPeer
	}
	return fmt.Sprintf("uid %d pid %d", cred.Uid, cred.Pid)
}
