//go:build !unix || aix || solaris

package pki

// lock does nothing: without flock two processes that revoke at once may lose one revocation.
func lock(string) (unlock func()) { return func() {} }
