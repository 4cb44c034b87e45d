//go:build mutants

package proxy

import (
	"os"
	"strconv"
)

var theMutant = func() mutant {
	n, err := strconv.Atoi(os.Getenv("MUTANT"))
	if err != nil || n <= int(mutantNone) || n >= int(mutants) {
		panic("MUTANT: want a number from 1 to " + strconv.Itoa(int(mutants)-1))
	}
	return mutant(n)
}()

func mutated(m mutant) bool { return m == theMutant }
