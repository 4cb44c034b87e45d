package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dragontls/certs/pki"
	"dragontls/config"
)

func (p program) devCommand() *cobra.Command {
	var dir, url string
	c := &cobra.Command{
		Use:     "dev [--dir pki] [--backend URL]",
		GroupID: groupRun,
		Short:   "runs it on a fresh machine, with a throw-away PKI and an in-memory backend",
		Long: `Makes a throw-away PKI if there is none, starts an in-memory backend unless one is
named, serves with production settings, and prints a line to try. "dragontls pki
revoke NAME" takes effect at once: TLS_CRL_FILE is ca.crl of that PKI.
DRAGONTLS_ variables hold as for serve; LISTEN is 127.0.0.1:6380 unless set.

The in-memory backend is for a first look:
` + embeddedLacks,
		Annotations: after(exitsOfServe),
		Args:        noArguments,
		RunE: func(*cobra.Command, []string) error {
			return asError(dev(dir, url, p))
		},
	}
	c.Flags().StringVar(&dir, "dir", "pki", "`DIR`: directory of the PKI (default pki)")
	c.Flags().StringVar(&url, "backend", "", "`URL`: backend (default an embedded one)")
	return c
}

// dev runs the proxy on a fresh machine, in front of an embedded backend unless url names another.
func dev(dir, url string, p program) int {
	env := p.env
	format := valueOf(env, "LOG_FORMAT")
	if format == "" {
		format = "console"
	}
	out := openLog(p.stderr, format)
	defer out.close()
	backend := "backend: " + config.Prefix + "BACKEND_URL"
	if url == "" && !set(env, "BACKEND_URL") && !set(env, "BACKEND_URL_FILE") {
		m, err := embedded()
		if err != nil {
			out.fatal("no backend", err)
			return exitFailed
		}
		defer m.Close()
		url = "redis://" + m.Addr()
		backend = "backend: in memory (miniredis), its data ends with this process\n  " + embeddedLacks
	} else if url != "" {
		backend = "backend: as named by --backend"
		env = without(env, "BACKEND_URL", "BACKEND_URL_FILE")
	}
	env = devEnv(env, dir, url)
	if _, err := configure(source{environ: env}, coming(dir)...); err != nil {
		return configFault(out, err) // before anything is written
	}
	if err := prepare(dir, env); err != nil {
		out.fatal("no PKI", err)
		return exitFailed
	}
	c, err := configure(source{environ: env})
	if err != nil {
		return configFault(out, err)
	}
	s, code := start(c, source{environ: env}, out)
	if s == nil {
		return code
	}
	return s.run(func() {
		fmt.Fprintf(p.stdout, "dragontls dev\n  listening on %s (mutual TLS)\n  certificates in %s\n  %s\n\ntry, in another terminal:\n\n  %s\n\n",
			s.listener.Addr(), dir, backend, tryLine(s.listener.Addr().String(), dir))
	})
}

// coming returns the files that prepare will make in dir.
func coming(dir string) []string {
	crl := filepath.Join(dir, "ca.crl")
	if pki.Vacant(dir) == nil {
		return []string{filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), filepath.Join(dir, "ca.crt"), crl}
	}
	return []string{crl}
}

// prepare makes a PKI in dir if there is none, and the CRL that env names if an earlier version made the PKI without one.
func prepare(dir string, env []string) error {
	if err := pki.Init(pki.Options{Dir: dir}); err != nil && !errors.Is(err, pki.ErrExists) {
		return err
	}
	if valueOf(env, "TLS_CRL_FILE") == filepath.Join(dir, "ca.crl") {
		return completeCRL(dir)
	}
	return nil
}

// devEnv adds what dev chooses where the environment does not say otherwise.
func devEnv(env []string, dir, url string) []string {
	choice := map[string]string{
		"LISTEN": "127.0.0.1:6380", "LOG_FORMAT": "console", "BACKEND_URL": url,
		"TLS_CERT_FILE":      filepath.Join(dir, "server.crt"),
		"TLS_KEY_FILE":       filepath.Join(dir, "server.key"),
		"TLS_CLIENT_CA_FILE": filepath.Join(dir, "ca.crt"),
	}
	// The CRL is that of our CA, and of use only where its clients show certificates.
	if !set(env, "TLS_CRL_FILE") && !set(env, "TLS_CLIENT_CA_FILE") && valueOf(env, "TLS_CLIENT_AUTH") != "none" && hasCRL(dir) {
		choice["TLS_CRL_FILE"], choice["TLS_CRL_EXPIRED"] = filepath.Join(dir, "ca.crl"), "warn"
	}
	for name, value := range choice {
		if value != "" && !set(env, name) {
			env = append(env, config.Prefix+name+"="+value)
		}
	}
	return env
}

// hasCRL reports whether the PKI in dir has a CRL, or prepare can make one: without its key a CA signs none.
func hasCRL(dir string) bool {
	return pki.Vacant(dir) == nil || exists(filepath.Join(dir, "ca.crl")) || exists(filepath.Join(dir, "ca.key"))
}

// valueOf returns the value of a variable, or "" if it is not set.
func valueOf(env []string, name string) (value string) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, config.Prefix+name+"="); ok {
			value = v // the last one counts, as for config.Load
		}
	}
	return value
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
