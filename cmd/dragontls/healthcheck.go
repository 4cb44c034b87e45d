package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragontls/config"
)

const (
	adminVariable  = config.Prefix + "ADMIN_LISTEN"
	adminDefault   = "127.0.0.1:9380"
	healthTimeout  = 3 * time.Second
	maxHealthReply = 4 << 10
)

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
	address, err := adminAddress(env)
	if err != nil {
		fmt.Fprintf(stderr, "dragontls healthcheck: %v\n", err)
		return exitFailed
	}
	ready, answer, err := askReady(address)
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "dragontls healthcheck: %v\n", err)
		return exitFailed
	case !ready:
		fmt.Fprintln(stderr, answer)
		return exitFailed
	}
	fmt.Fprintln(stdout, answer)
	return exitOK
}

// adminAddress is where to reach what ADMIN_LISTEN binds.
func adminAddress(env []string) (string, error) {
	listen := adminDefault
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, adminVariable+"="); ok {
			listen = value
		}
	}
	if listen == "" {
		return "", fmt.Errorf("the admin listener is disabled: %s is empty", adminVariable)
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("%s=%q: want host:port or :port", adminVariable, listen)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip == netip.IPv4Unspecified() {
		host = "127.0.0.1"
	} else if err == nil && ip == netip.IPv6Unspecified() {
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}

func askReady(address string) (ready bool, answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false, "", err
	}
	// A transport of its own: the default one would ask a proxy named in HTTP_PROXY.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return false, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthReply))
	if err != nil {
		return false, "", err
	}
	answer = strings.TrimSpace(string(body))
	if answer == "" {
		answer = resp.Status
	}
	return resp.StatusCode == http.StatusOK, answer, nil
}
