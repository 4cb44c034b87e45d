//go:build unix

package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// The end-to-end tests build the binary once and drive it as a process, in front of a real redis-server, with the
// clients that people use. What a machine lacks is a skip; with CI_STRICT=1 it is a failure.

func TestMain(m *testing.M) {
	if orders := os.Getenv(attackVariable); orders != "" {
		attackFor(orders)
		return
	}
	var err error
	parent := os.TempDir()
	if len(parent) > 50 {
		parent = "/tmp" // the path of a Unix socket has 104 bytes on macOS and 108 on Linux
	}
	if workDir, err = os.MkdirTemp(parent, "e2e"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(workDir)
	os.Exit(code)
}

var workDir string

// patience is how long a test waits for what must happen. Only a test that fails waits so long, and a machine that is
// busy with other things needs some of it.
const patience = 2 * time.Minute

// binary is the path of the program under test, with the race detector where the tests have it.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(workDir, "dragontls")
	args := []string{"build", "-buildvcs=false", "-o", path}
	if racing() {
		args = append(args, "-race", "-pgo=off") // as .ci/test builds the tests: no package is compiled twice
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return path, err
})

func racing() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// need skips the test where a tool is missing.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, tool+" is not installed")
		}
	}
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI_STRICT") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// output may be read while a process writes it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// process is a program in a process group of its own, which ends with the test at the latest.
type process struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
}

func launch(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.WaitDelay = 5 * time.Second // for a child that keeps its output open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process, which Cleanup kills
		cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	})
	return p
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// wantExit waits for the end of the process.
func (p *process) wantExit(code int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("still running; its log:\n%s", &p.stderr)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("got exit code %d, want %d; its log:\n%s", got, code, &p.stderr)
	}
}

// instance is a running dragontls.
type instance struct {
	*process
	dir   string // holds pki/
	addr  string
	admin string
	name  string // that its certificate is verified for; empty: localhost
}

// raceOptions let a process end when its main function does. By default one that has the race detector sleeps for another
// second, which is most of what a short test takes.
const raceOptions = "GORACE=halt_on_error=1 atexit_sleep_ms=20"

// environ is a clean environment: nothing of the machine's DRAGONTLS_ variables.
func environ(vars ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), raceOptions}
	for _, v := range vars {
		env = append(env, "DRAGONTLS_"+v)
	}
	return env
}

// dragontls runs the binary in dir.
func dragontls(t testing.TB, dir string, args, vars []string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = dir, environ(vars...)
	return launch(t, cmd)
}

// backendModes are the values of BACKEND_MODE, the default first. Tests that name none run in the default.
var backendModes = []string{"shared", "paired"}

// inBothModes runs a test in each, at the same time.
func inBothModes(t *testing.T, test func(t *testing.T, mode string)) {
	t.Parallel()
	for _, mode := range backendModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}

// longDrain is for tests whose clients are killed while they work: the proxy has to notice that before the drain ends.
const longDrain = "DRAIN_TIMEOUT=30s"

// proxyVars are what serve needs, on free ports. The drain is short: idle sessions end within half of its time, however
// busy the machine is, and only a session that waits for a reply then is cut. A test that ends with such sessions takes longDrain.
func proxyVars(backend string) []string {
	return []string{
		"LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:0", "BACKEND_URL=" + backend, "LOG_LEVEL=trace", "DRAIN_TIMEOUT=1s",
		"TLS_CERT_FILE=pki/server.crt", "TLS_KEY_FILE=pki/server.key", "TLS_CLIENT_CA_FILE=pki/ca.crt",
	}
}

// serving starts `dragontls serve` in a directory with a PKI and waits until it listens.
func serving(t testing.TB, backend string, vars ...string) *instance {
	t.Helper()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	return servingIn(t, dir, append(proxyVars(backend), vars...)...)
}

func servingIn(t testing.TB, dir string, vars ...string) *instance {
	t.Helper()
	p := &instance{process: dragontls(t, dir, []string{"serve"}, vars), dir: dir}
	line := p.wantLog("listening")
	p.addr, _ = line["address"].(string)
	p.admin, _ = line["admin"].(string)
	return p
}

// logged returns the lines with a message.
func (p *instance) logged(message string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(p.stderr.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["message"] == message {
			found = append(found, fields)
		}
	}
	return found
}

func (p *instance) wantLog(message string) map[string]any {
	p.t.Helper()
	var found []map[string]any
	eventually(p.t, "log line "+message, func() bool {
		found = p.logged(message)
		if len(found) == 0 && !p.running() {
			p.t.Fatalf("ended early:\n%s", &p.stderr)
		}
		return len(found) > 0
	})
	return found[0]
}

// get asks the admin listener.
func (p *instance) get(path string) (code int, body string) {
	p.t.Helper()
	res, err := http.Get("http://" + p.admin + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (p *instance) wantReady() *instance {
	p.t.Helper()
	eventually(p.t, "ready", func() bool {
		code, _ := p.get("/readyz")
		return code == http.StatusOK
	})
	return p
}

func (p *instance) wantNotReady(why string) {
	p.t.Helper()
	eventually(p.t, "not ready: "+why, func() bool {
		code, body := p.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, why)
	})
}

// wantEnd drains and wants that no race and no panic was seen.
func (p *instance) wantEnd() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
	if text := p.stderr.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, `"panic"`) {
		p.t.Errorf("log:\n%s", text)
	}
}

func (p *instance) port() string {
	_, port, _ := net.SplitHostPort(p.addr)
	return port
}

func (p *instance) file(name string) string { return filepath.Join(p.dir, "pki", name) }

// flags are what redis-cli and redis-benchmark need.
func (p *instance) flags() []string {
	return []string{"--tls", "-h", "127.0.0.1", "-p", p.port(),
		"--cacert", p.file("ca.crt"), "--cert", p.file("client.crt"), "--key", p.file("client.key")}
}

// clientTLS verifies the proxy as a client does.
func (p *instance) clientTLS() *tls.Config {
	p.t.Helper()
	pair, err := tls.LoadX509KeyPair(p.file("client.crt"), p.file("client.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	return &tls.Config{RootCAs: readPool(p.t, p.file("ca.crt")), Certificates: []tls.Certificate{pair}, ServerName: cmp.Or(p.name, "localhost")}
}

func readPool(t testing.TB, path string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", path)
	}
	return pool
}

// tool runs a program to its end and returns what it printed.
func tool(t testing.TB, dir, stdin, name string, args ...string) (string, error) {
	t.Helper()
	need(t, name)
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, environ(), strings.NewReader(stdin)
	p := launch(t, cmd)
	select {
	case <-p.ended:
	case <-time.After(patience):
		return p.stdout.String() + p.stderr.String(), errors.New("it hangs")
	}
	var err error
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	return p.stdout.String() + p.stderr.String(), err
}

// wantTool wants success.
func wantTool(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, "", stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// eventually polls until it holds; the limit only ends a test that fails.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}
