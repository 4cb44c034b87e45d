// Dragontls is a TLS-terminating proxy in front of Dragonfly.
package main

import (
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

const serveUsage = `usage: dragontls [serve]

Runs the proxy. All settings are DRAGONTLS_ environment variables; config/docs/settings.md lists them.
SIGTERM and SIGINT drain, a second SIGTERM ends at once, SIGHUP reads the certificates again.
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
		if code, done := noArguments(rest, serveUsage, stdout, stderr); done {
			return code
		}
		return serve(env, stdout, stderr)
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
