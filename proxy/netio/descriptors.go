package netio

import (
	"errors"
	"syscall"
)

// IsOutOfDescriptors reports whether err says that this process, or the whole system, has as many files open as it may.
func IsOutOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
