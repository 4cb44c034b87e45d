//go:build !mutants

package proxy

func mutated(mutant) bool { return false }
