// Dragontls is a TLS-terminating proxy in front of Dragonfly.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
)

const usage = `usage: dragontls [command]

  serve                runs the proxy (also without a command)
  dev                  runs it on a fresh machine, with a throw-away PKI and an in-memory backend
  pki                  makes and renews development certificates
  check                verifies the configuration, its files and the backend, without serving
  probe HOST:PORT      verifies a running endpoint from outside
  healthcheck          asks the running proxy whether it is ready
  version              prints the version
  help                 prints this

"dragontls COMMAND --help" says more. Settings are DRAGONTLS_ environment variables; config/docs/settings.md lists them.
`

const serveUsage = `usage: dragontls serve [--env-file FILE]

Runs the proxy. All settings are DRAGONTLS_ environment variables; config/docs/settings.md lists them.
SIGTERM and SIGINT drain, a second SIGTERM ends at once, SIGHUP reads the certificates and FILE again.

  --env-file FILE      reads variables that the environment does not set from FILE, a NAME=VALUE a line

Exit codes: 0 drained, 1 failed or drain timed out, 2 bad configuration.
`

func main() {
	zerolog.TimeFieldFormat = logTime
	os.Exit(dispatch(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// dispatch runs the command that args name and returns its exit code.
func dispatch(args, env []string, stdout, stderr io.Writer) int {
	name, rest := "serve", []string(nil)
	if len(args) > 0 {
		name, rest = args[0], args[1:]
	}
	switch name {
	case "serve":
		envFile, code, done := serveArguments(rest, stdout, stderr)
		if done {
			return code
		}
		return serve(env, envFile, stderr)
	case "dev":
		return dev(rest, env, stdout, stderr)
	case "pki":
		return runPKI(rest, stdout, stderr)
	case "check":
		return check(rest, env, stdout, stderr)
	case "probe":
		return probe(rest, stdout, stderr)
	case "healthcheck":
		return healthcheck(rest, env, stdout, stderr)
	case "version", "-version", "--version":
		return printVersion(rest, stdout, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	fmt.Fprintf(stderr, "dragontls: unknown command %q\n%s", name, usage)
	return exitConfig
}

// serveArguments returns the file of --env-file; done means that code is the exit code.
func serveArguments(args []string, stdout, stderr io.Writer) (envFile string, code int, done bool) {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&envFile, "env-file", "", "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, serveUsage)
		return "", exitOK, true
	case err != nil:
		fmt.Fprintf(stderr, "dragontls serve: %v\n%s", err, serveUsage)
		return "", exitConfig, true
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "dragontls: unknown argument %q\n%s", flags.Arg(0), serveUsage)
		return "", exitConfig, true
	}
	return envFile, exitOK, false
}

// noArguments answers for a command that takes none but --help; done means that
// code is its exit code.
func noArguments(args []string, usage string, stdout, stderr io.Writer) (code int, done bool) {
	if len(args) == 0 {
		return 0, false
	}
	if isHelp(args[0]) {
		fmt.Fprint(stdout, usage)
		return exitOK, true
	}
	fmt.Fprintf(stderr, "dragontls: unknown argument %q\n%s", args[0], usage)
	return exitConfig, true
}

func isHelp(arg string) bool {
	return arg == "-h" || arg == "-help" || arg == "--help"
}
