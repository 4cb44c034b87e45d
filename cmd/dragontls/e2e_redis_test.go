//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dragontls/proxy/proxytest"
)

// redis is a real redis-server. It listens on a Unix socket, whose path no other process can take. One that was started
// by redisOnTCP listens on a TCP address as well.
type redis struct {
	*process
	dir      string
	args     []string // of redis-server, to start it again
	socket   string
	address  netip.AddrPort // its TCP address; zero: none
	password string         // empty: none
}

// url is the BACKEND_URL for it: over TCP where it listens there.
func (r *redis) url() string {
	if r.address.IsValid() {
		return "redis://" + r.address.String()
	}
	return "unix://" + r.socket
}

// dial connects to it without the proxy.
func (r *redis) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (r *redis) kill() {
	syscall.Kill(r.cmd.Process.Pid, syscall.SIGKILL)
	<-r.ended
}

// start starts it, also again after kill: at the same addresses, without its keys.
func (r *redis) start(t testing.TB) {
	t.Helper()
	need(t, "redis-server")
	args := append([]string{"--port", "0", "--save", "", "--appendonly", "no", "--dir", r.dir, "--unixsocket", r.socket}, r.args...)
	r.process = launch(t, exec.Command("redis-server", args...))
	eventually(t, "redis-server accepts", func() bool {
		// It opens its socket after its TCP ports.
		conn, err := net.Dial("unix", r.socket)
		if err != nil {
			if !r.running() {
				t.Fatalf("redis-server ended:\n%s", &r.stdout)
			}
			return false
		}
		conn.Close()
		return true
	})
}

// redisServer starts one; args are its options.
func redisServer(t testing.TB, args ...string) *redis {
	t.Helper()
	r := newRedis(t, args...)
	r.start(t)
	return r
}

// redisOnTCP starts one that listens on a TCP address of its own, too.
func redisOnTCP(t testing.TB, args ...string) *redis {
	t.Helper()
	r := redisWithAddress(t, args...)
	r.start(t)
	return r
}

// redisWithAddress is one that is not started yet: nobody listens at its address.
func redisWithAddress(t testing.TB, args ...string) *redis {
	t.Helper()
	at := ownAddress()
	r := newRedis(t, append([]string{"--bind", at.Addr().String(), "--port", fmt.Sprint(at.Port())}, args...)...)
	r.address = at
	return r
}

// relayed returns an address of 127.0.0.1 that leads to the server's socket. A relay holds its port for the whole test.
func (r *redis) relayed(t testing.TB) netip.AddrPort {
	t.Helper()
	relay, err := proxytest.NewRelay("unix:"+r.socket, proxytest.Faults{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	return netip.MustParseAddrPort(relay.Addr())
}

func newRedis(t testing.TB, args ...string) *redis {
	t.Helper()
	dir, err := os.MkdirTemp(workDir, "r")
	if err != nil {
		t.Fatal(err)
	}
	return &redis{dir: dir, args: args, socket: filepath.Join(dir, "s")}
}

const backendPassword = "backend-secret"

func lockedRedis(t testing.TB, args ...string) *redis {
	t.Helper()
	r := redisServer(t, append([]string{"--requirepass", backendPassword}, args...)...)
	r.password = backendPassword
	return r
}

// observe asks the backend itself.
func (r *redis) observe(args ...string) string {
	r.t.Helper()
	all := []string{"-s", r.socket, "--no-auth-warning"}
	if r.password != "" {
		all = append(all, "-a", r.password)
	}
	return strings.TrimSuffix(wantTool(r.t, "", "redis-cli", append(all, args...)...), "\n")
}

// wantBlocked waits until so many clients wait in a blocking command.
func (r *redis) wantBlocked(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " clients wait"), func() bool {
		return strings.Contains(r.observe("INFO", "clients"), fmt.Sprintf("blocked_clients:%d\r", n))
	})
}

// clients is what CLIENT LIST shows, but for who asks and the prober, which says PING and nothing else.
func (r *redis) clients() []string {
	r.t.Helper()
	var list []string
	for line := range strings.Lines(r.observe("CLIENT", "LIST")) {
		if !strings.Contains(line, " cmd=client|list ") && !strings.Contains(line, " cmd=ping ") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// ownAddress returns a TCP address for a program that cannot be told to take any free port. All of 127.0.0.0/8 is this
// machine, and the address is one of 8 million there that nobody else listens on. The port is below those that the
// kernel chooses from (ip_local_port_range begins at 32768), so that no socket that is bound to port 0 of all
// addresses can have it either. It stays the test's own while nobody listens on it.
func ownAddress() netip.AddrPort {
	n := rand.Uint32()
	ip := netip.AddrFrom4([4]byte{127, 128 | byte(n>>16)&127, byte(n >> 8), 1 | byte(n)&0xfe})
	return netip.AddrPortFrom(ip, 20000+uint16(n>>24))
}
