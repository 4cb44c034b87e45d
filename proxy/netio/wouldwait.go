package netio

import "net"

// ErrWouldWait is for BeforeWait: it ends a read that would wait, for instance while the reader holds a big buffer with nothing in
// it. It is a temporary error, after which crypto/tls goes on with the next read.
var ErrWouldWait net.Error = wouldWait{}

type wouldWait struct{}

func (wouldWait) Error() string { return "read would wait" }

func (wouldWait) Timeout() bool { return true }

func (wouldWait) Temporary() bool { return true }
