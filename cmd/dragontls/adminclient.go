package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragontls/config"
	"dragontls/proxy/admin"
)

const (
	adminVariable = config.Prefix + "ADMIN_LISTEN"
	tokenVariable = config.Prefix + "ADMIN_TOKEN_FILE"
	adminDefault  = "127.0.0.1:9380"

	// steerTimeout is longer than the admin listener takes to answer.
	steerTimeout  = 30 * time.Second
	maxAdminReply = 64 << 20 // 10,000 sessions take 6 MiB
	maxTokenFile  = 64 << 10
)

// adminClient asks the admin listener of a running proxy.
type adminClient struct {
	network, address string
	token            string // empty: none is sent
}

// adminTarget is where to reach what ADMIN_LISTEN, or listen if it is not empty, names.
func adminTarget(env []string, listen string) (adminClient, error) {
	variable := "--admin"
	if listen == "" {
		listen, variable = adminDefault, adminVariable
		if set(env, "ADMIN_LISTEN") {
			listen = valueOf(env, "ADMIN_LISTEN")
		}
	}
	if listen == "" {
		return adminClient{}, fmt.Errorf("the admin listener is disabled: %s is empty", adminVariable)
	}
	if path, ok := strings.CutPrefix(listen, admin.UnixScheme); ok {
		if !filepath.IsAbs(path) {
			return adminClient{}, fmt.Errorf("%s=%q: want an absolute path after unix://", variable, listen)
		}
		return adminClient{network: "unix", address: path}, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return adminClient{}, fmt.Errorf("%s=%q: want host:port or :port, or unix:///path", variable, listen)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip == netip.IPv4Unspecified() {
		host = "127.0.0.1"
	} else if err == nil && ip == netip.IPv6Unspecified() {
		host = "::1"
	}
	return adminClient{network: "tcp", address: net.JoinHostPort(host, port)}, nil
}

// withToken reads the file of ADMIN_TOKEN_FILE, if one is named and the request goes over TCP.
func (a adminClient) withToken(env []string) (adminClient, error) {
	path := valueOf(env, "ADMIN_TOKEN_FILE")
	if path == "" || a.network == "unix" {
		return a, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return a, fmt.Errorf("%s: %w", tokenVariable, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return a, fmt.Errorf("%s: %w", tokenVariable, err)
	}
	a.token = strings.TrimSpace(string(text))
	return a, nil
}

// ask sends one request and returns the status and the body of the answer.
func (a adminClient) ask(ctx context.Context, method, target string) (*http.Response, []byte, error) {
	host := a.address
	if a.network == "unix" {
		host = "localhost"
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+target, nil)
	if err != nil {
		return nil, nil, err
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	if method == http.MethodPost {
		r.Header.Set(admin.OperatorHeader, "1")
	}
	// A transport of its own: the default one would ask a proxy named in HTTP_PROXY.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, a.network, a.address)
	}}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminReply+1))
	if err == nil && len(body) > maxAdminReply {
		err = errors.New("the answer is too long")
	}
	return resp, body, err
}

// into decodes an answer, or returns as an error what the admin listener says instead. An answer with one of the codes of good is decoded.
func (a adminClient) into(v any, method, target string, good ...int) error {
	ctx, cancel := context.WithTimeout(context.Background(), steerTimeout)
	defer cancel()
	resp, body, err := a.ask(ctx, method, target)
	if err != nil {
		return fmt.Errorf("%w\nis dragontls running, and is this its %s?", err, adminVariable)
	}
	for _, code := range good {
		if resp.StatusCode == code && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			if err := json.Unmarshal(body, v); err != nil {
				return fmt.Errorf("the answer of %s is not understood, is it another version? %w", a.address, err)
			}
			return nil
		}
	}
	var refused admin.ErrorAnswer
	if json.Unmarshal(body, &refused) == nil && refused.Error != "" {
		return errors.New(printable(refused.Error))
	}
	text := strings.TrimSpace(string(body))
	if text == "" || resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
		return fmt.Errorf("%s does not know %s: is it another version, or another program?", a.address, strings.SplitN(target, "?", 2)[0])
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// steeringCommand completes a command that asks a running proxy. do returns the exit code; an error is printed after the name of the command, and ends it with exitFailed.
func (p program) steeringCommand(c *cobra.Command, do func(a adminClient, args []string) (int, error)) *cobra.Command {
	var listen string
	c.GroupID = groupSteer
	c.RunE = func(c *cobra.Command, args []string) error {
		a, err := adminTarget(p.env, listen)
		if err == nil {
			a, err = a.withToken(p.env)
		}
		code := exitFailed
		if err == nil {
			code, err = do(a, args)
		}
		if err != nil {
			if _, ok := errors.AsType[*misuse](err); ok {
				return err
			}
			fmt.Fprintf(p.stderr, "%s: %v\n", c.CommandPath(), err)
			return exitCode(exitFailed)
		}
		return asError(code)
	}
	c.Flags().StringVar(&listen, "admin", "", "`ADDR`: admin listener to ask, host:port or unix:///path (default that of DRAGONTLS_ADMIN_LISTEN)")
	return c
}

// query makes a target of a path and one parameter.
func query(path, key, value string) string { return path + "?" + url.Values{key: {value}}.Encode() }
