package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const healthTimeout = 3 * time.Second

func (p program) healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "healthcheck",
		GroupID: groupSteer,
		Short:   "asks the running proxy whether it is ready",
		Long: `Asks /readyz of the admin listener that DRAGONTLS_ADMIN_LISTEN names (default 127.0.0.1:9380)
and prints its answer.`,
		Annotations: after("Exit codes: 0 ready, 1 not ready, no answer within 3 s or listener disabled."),
		Args:        noArguments,
		RunE:        func(*cobra.Command, []string) error { return asError(healthcheck(p.env, p.stdout, p.stderr)) },
	}
}

// healthcheck reads that one variable only: the rest of the configuration is the
// running proxy's affair.
func healthcheck(env []string, stdout, stderr io.Writer) int {
	a, err := adminTarget(env, "")
	if err != nil {
		fmt.Fprintf(stderr, "dragontls healthcheck: %v\n", err)
		return exitFailed
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	resp, body, err := a.ask(ctx, http.MethodGet, "/readyz")
	if err != nil {
		fmt.Fprintf(stderr, "dragontls healthcheck: %v\n", err)
		return exitFailed
	}
	answer := cmp.Or(strings.TrimSpace(string(body)), resp.Status)
	if resp.StatusCode != http.StatusOK {
		fmt.Fprintln(stderr, answer)
		return exitFailed
	}
	fmt.Fprintln(stdout, answer)
	return exitOK
}
