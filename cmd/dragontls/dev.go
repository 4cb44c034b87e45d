package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"dragontls/certs/pki"
	"dragontls/config"
)

const devUsage = `usage: dragontls dev [--dir pki] [--backend URL]

Makes a throw-away PKI if there is none, starts an in-memory backend unless one is
named, serves with production settings, and prints a line to try.
DRAGONTLS_ variables hold as for serve; LISTEN is 127.0.0.1:6380 unless set.
`

// dev runs the proxy on a fresh machine, in front of an embedded backend.
func dev(args, env []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("dev", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, devUsage) }
	dir := flags.String("dir", "pki", "directory of the PKI")
	url := flags.String("backend", "", "URL of a backend; empty: an embedded one")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitConfig
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "dragontls dev: unknown argument %q\n%s", flags.Arg(0), devUsage)
		return exitConfig
	}
	if err := pki.Init(pki.Options{Dir: *dir}); err != nil && !errors.Is(err, pki.ErrExists) {
		fmt.Fprintf(stderr, "dragontls dev: %v\n", err)
		return exitFailed
	}
	backend := "backend: " + config.Prefix + "BACKEND_URL"
	if *url == "" && !set(env, "BACKEND_URL") && !set(env, "BACKEND_URL_FILE") {
		m, err := embedded()
		if err != nil {
			fmt.Fprintf(stderr, "dragontls dev: %v\n", err)
			return exitFailed
		}
		defer m.Close()
		*url = "redis://" + m.Addr()
		backend = "backend: in memory (miniredis), its data ends with this process"
	} else if *url != "" {
		backend = "backend: as named by --backend"
		env = without(env, "BACKEND_URL", "BACKEND_URL_FILE")
	}
	out := openLog(stderr)
	defer out.close()
	c, err := config.Load(devEnv(env, *dir, *url))
	if err != nil {
		return configFault(out, err)
	}
	s, code := start(c, out)
	if s == nil {
		return code
	}
	return s.run(func() {
		fmt.Fprintf(stdout, "dragontls dev\n  listening on %s (mutual TLS)\n  certificates in %s\n  %s\n\ntry, in another terminal:\n\n  %s\n\n",
			s.listener.Addr(), *dir, backend, tryLine(s.listener.Addr().String(), *dir))
	})
}

// devEnv adds what dev chooses where the environment does not say otherwise.
func devEnv(env []string, dir, url string) []string {
	for name, value := range map[string]string{
		"LISTEN": "127.0.0.1:6380", "LOG_FORMAT": "console", "BACKEND_URL": url,
		"TLS_CERT_FILE":      filepath.Join(dir, "server.crt"),
		"TLS_KEY_FILE":       filepath.Join(dir, "server.key"),
		"TLS_CLIENT_CA_FILE": filepath.Join(dir, "ca.crt"),
	} {
		if value != "" && !set(env, name) {
			env = append(env, config.Prefix+name+"="+value)
		}
	}
	return env
}

func set(env []string, name string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, config.Prefix+name+"=") {
			return true
		}
	}
	return false
}

func without(env []string, names ...string) []string {
	var kept []string
	for _, e := range env {
		keep := true
		for _, n := range names {
			keep = keep && !strings.HasPrefix(e, config.Prefix+n+"=")
		}
		if keep {
			kept = append(kept, e)
		}
	}
	return kept
}

func tryLine(address, dir string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return fmt.Sprintf("redis-cli --tls -h %s -p %s --cacert %s --cert %s --key %s", host, port,
		quote(filepath.Join(dir, "ca.crt")), quote(filepath.Join(dir, "client.crt")), quote(filepath.Join(dir, "client.key")))
}

// quote makes one shell word of a path.
func quote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+@:", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// embedded is miniredis with the few answers that clients ask for when they connect and that it lacks.
func embedded() (*miniredis.Miniredis, error) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("start the embedded backend: %w", err)
	}
	err := m.Server().Register("CONFIG", func(c *server.Peer, cmd string, args []string) {
		if len(args) < 2 || !strings.EqualFold(args[0], "GET") {
			c.WriteError("ERR the embedded backend knows CONFIG GET only")
			return
		}
		c.WriteMapLen(0)
	})
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("start the embedded backend: %w", err)
	}
	// miniredis takes COMMAND DOCS for COMMAND, and redis-cli aborts at that answer where an error makes it use
	// the help it brings along.
	m.Server().SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
		docs := strings.EqualFold(cmd, "COMMAND") && len(args) > 0 && strings.EqualFold(args[0], "DOCS")
		if docs {
			c.WriteError("ERR the embedded backend does not know COMMAND DOCS")
		}
		return docs
	})
	return m, nil
}
