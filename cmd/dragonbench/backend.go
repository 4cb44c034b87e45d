package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// backendProgram is redis-server, Dragonfly or a model of a backend.
type backendProgram struct {
	path      string
	dragonfly bool
	model     *pace // nil: it is none
}

// backend is one of its processes.
type backend struct {
	*process
	program backendProgram
	address string
	files   *tlsFiles // nil: in clear
}

// Names of backends on the command line; parsePace knows those of models.
const (
	redisName     = "redis-server"
	dragonflyName = "dragonfly"
)

// findBackends finds the programs of a comma-separated list of names. An empty list is what findBackend chooses.
func findBackends(list string, env func(string) string) (all []backendProgram, err error) {
	for _, name := range splitBackends(list) {
		if name == "" && list != "" {
			return nil, fmt.Errorf("--backend %q: a name is empty", list)
		}
		one, err := findBackend(name, env)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(other backendProgram) bool { return other.name() == one.name() }) {
			return nil, fmt.Errorf("--backend %q: %s is there twice", list, one.name())
		}
		all = append(all, one)
	}
	return all, nil
}

// splitBackends keeps the two times of a model together, which a comma separates too.
func splitBackends(list string) (names []string) {
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if n := len(names) - 1; n >= 0 && strings.HasPrefix(names[n], modelPrefix) && !strings.Contains(names[n], ",") {
			names[n] += "," + part
			continue
		}
		names = append(names, part)
	}
	return names
}

// findBackend finds what the user names. Without a name it prefers a Dragonfly.
func findBackend(name string, env func(string) string) (backendProgram, error) {
	dragonfly := env("DRAGONFLY_BIN")
	switch {
	case name == dragonflyName && dragonfly == "":
		return backendProgram{}, errors.New("--backend dragonfly: name its program in DRAGONFLY_BIN")
	case name == dragonflyName, name == "" && dragonfly != "":
		if _, err := exec.LookPath(dragonfly); err != nil {
			return backendProgram{}, fmt.Errorf("DRAGONFLY_BIN: %w", err)
		}
		return backendProgram{path: dragonfly, dragonfly: true}, nil
	case name == redisName, name == "":
		path, err := lookPath(redisName)
		if err != nil {
			return backendProgram{}, fmt.Errorf("no backend: %w\ninstall one (apt-get install redis-server) or name a Dragonfly in DRAGONFLY_BIN", err)
		}
		return backendProgram{path: path}, nil
	}
	p, err := parsePace(name)
	if err != nil {
		return backendProgram{}, fmt.Errorf("--backend %w", err)
	}
	return p.program()
}

func (b backendProgram) name() string {
	switch {
	case b.model != nil:
		return b.model.String()
	case b.dragonfly:
		return dragonflyName
	}
	return redisName
}

// figures names the figures to reach that a run in front of this backend is judged by; "" if there are none.
func (b backendProgram) figures() string {
	switch {
	case b.model == nil && b.dragonfly:
		return figuresDragonfly
	case b.model == nil:
		return figuresRedis
	case *b.model == dragonflyPace:
		return figuresModel
	case *b.model == slowPace:
		return figuresSlow
	}
	return ""
}

// command listens on address alone: with TLS 1.3 and client certificates if there are files, else in clear.
func (b backendProgram) command(dir, address string, files *tlsFiles) *exec.Cmd {
	host, port, _ := net.SplitHostPort(address)
	if b.model != nil {
		return b.model.command(b.path, host, port)
	}
	args := []string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", dir, "--maxclients", "20000"}
	if files != nil {
		args = []string{"--bind", host, "--port", "0", "--tls-port", port, "--save", "", "--appendonly", "no", "--dir", dir,
			"--maxclients", "20000",
			"--tls-cert-file", files.ServerCert, "--tls-key-file", files.ServerKey, "--tls-ca-cert-file", files.CA,
			"--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.3", "--tls-ciphersuites", cipherSuite}
	}
	if b.dragonfly {
		args = []string{"--bind=" + host, "--port=" + port, "--dbfilename=", "--dir=" + dir}
		if files != nil {
			args = append(args, "--tls=true", "--tls_cert_file="+files.ServerCert, "--tls_key_file="+files.ServerKey,
				"--tls_ca_cert_file="+files.CA)
		}
	}
	return exec.Command(b.path, args...)
}

// startBackend starts one on address, on one of its own if that is "".
func (r *rig) startBackend(ctx context.Context, address string, files *tlsFiles) (*backend, error) {
	if address == "" {
		address = ownAddress()
	}
	p, err := r.keeper.start(r.backend.command(r.keeper.dir, address, files))
	if err != nil {
		return nil, err
	}
	b := &backend{process: p, program: r.backend, address: address, files: files}
	if err := r.ready(ctx, p, address, files); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.backend.name(), err)
	}
	return b, nil
}

// ready waits until a PING is answered.
func (r *rig) ready(ctx context.Context, p *process, address string, files *tlsFiles) error {
	const limit = time.Minute
	var last error
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if last = ping(ctx, address, files); last == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended at once (%v); its last words:\n%s", p.cmd.ProcessState, p.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("no PONG within %v: %w\nits last words:\n%s", limit, last, p.tail())
}

func ping(ctx context.Context, address string, files *tlsFiles) error {
	g := generator{}
	if files != nil {
		var err error
		if g.tls, err = files.client(); err != nil {
			return err
		}
	}
	c, err := dial(ctx, address, g.tls)
	if err != nil {
		return err
	}
	defer c.abort()
	return c.ask(pingCommandBytes, pongReply)
}

// ownAddress returns a TCP address for a program that cannot be told to take any free port. All of 127.0.0.0/8 is this
// machine, and the address is one of 8 million there that nobody else listens on. The port is below those that the
// kernel chooses from (ip_local_port_range begins at 32768), so that no socket that is bound to port 0 of all
// addresses can have it either. It stays our own while nobody listens on it.
func ownAddress() string {
	n := rand.Uint32()
	ip := netip.AddrFrom4([4]byte{127, 128 | byte(n>>16)&127, byte(n >> 8), 1 | byte(n)&0xfe})
	return netip.AddrPortFrom(ip, 20000+uint16(n>>24)).String()
}

// lookPath finds a program where Debian puts daemons too, which the PATH of a user may not name.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", err
}
