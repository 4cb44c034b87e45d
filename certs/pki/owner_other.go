//go:build !unix

package pki

import "os"

// keepOwner does nothing: only Unix has an owner that a rename loses.
func keepOwner(*os.File, string) {}
