// Dragontls is a TLS-terminating proxy in front of Dragonfly.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
)

func main() {
	zerolog.TimeFieldFormat = logTime
	os.Exit(run(os.Args[1:], program{env: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}))
}

// program is what a command runs with.
type program struct {
	env            []string
	stdout, stderr io.Writer
}

// run runs the command that args name and returns its exit code.
func run(args []string, p program) int {
	root := p.root()
	if args == nil {
		args = []string{} // cobra takes nil for those of the process
	}
	root.SetArgs(args)
	err := root.Execute()
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if wrong, ok := errors.AsType[*misuse](err); ok {
		fmt.Fprintf(p.stderr, "%s: %s\n", wrong.command.CommandPath(), oneLine(wrong.text))
		p.writeUsage(p.stderr, wrong.command)
		return exitConfig
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "dragontls: %v\n", err)
		return exitFailed
	}
	return exitOK
}
