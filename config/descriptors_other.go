//go:build !unix

package config

func descriptorLimit() uint64 { return 0 }
