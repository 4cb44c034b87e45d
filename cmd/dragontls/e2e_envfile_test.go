//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dragontls/config"
)

// afterRestart are a value for each variable that needs a restart, other than the one in use; %s is a directory.
var afterRestart = map[string]string{
	"LISTEN": "127.0.0.1:1", "TAKE_OVER": "true", "ADMIN_LISTEN": "127.0.0.1:2", "ADMIN_TOKEN_FILE": "%s/token",
	"TLS_CERT_FILE": "%s/server.crt", "TLS_KEY_FILE": "%s/server.key", "TLS_KEY_PASSWORD_FILE": "%s/token", "TLS_CLIENT_CA_FILE": "%s/ca.crt",
	"TLS_CRL_FILE": "%s/ca.crt", "TLS_CRL_EXPIRED": "warn", "TLS_CLIENT_AUTH": "optional", "TLS_MIN_VERSION": "1.3", "TLS_MAX_VERSION": "1.2",
	"TLS_RELOAD_INTERVAL": "7s", "TLS_TICKET_KEYS_FILE": "%s/token", "ALLOW": "cn:x", "ALLOW_FILE": "%s/token", "USERS_FILE": "%s/token",
	"TLS_OCSP": "fetch", "KEEPALIVE": "7s", "BACKEND_URL": "redis://127.0.0.1:3", "BACKEND_URL_FILE": "%s/url", "BACKEND_USERNAME": "u",
	"BACKEND_PASSWORD": "p", "BACKEND_PASSWORD_FILE": "%s/token", "BACKEND_CA_FILE": "%s/ca.crt", "BACKEND_CERT_FILE": "%s/server.crt",
	"BACKEND_KEY_FILE": "%s/server.key", "BACKEND_SERVER_NAME": "n", "BACKEND_MODE": "paired", "BACKEND_LANES": "7", "LOG_FORMAT": "console", "PROXY_PROTOCOL_FROM": "192.0.2.0/24",
}

// alongside are variables without which another one would be a fault.
var alongside = map[string][]string{
	"BACKEND_USERNAME": {"BACKEND_PASSWORD=p"}, "BACKEND_CA_FILE": {"BACKEND_URL=rediss://h"}, "BACKEND_SERVER_NAME": {"BACKEND_URL=rediss://h"},
	"BACKEND_CERT_FILE": {"BACKEND_URL=rediss://h", "BACKEND_KEY_FILE=%s/server.key"},
	"BACKEND_KEY_FILE":  {"BACKEND_URL=rediss://h", "BACKEND_CERT_FILE=%s/server.crt"},
}

func TestOtherVariablesNeedARestartAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	dir := ownPKI(t, newCA(t, "restart"))
	other := filepath.Join(dir, "pki")
	write(t, filepath.Join(other, "token"), []byte("0123456789012345678901234567890123456789\n"))
	write(t, filepath.Join(other, "url"), []byte("redis://127.0.0.1:4\n"))
	fill := func(value string) string { return strings.ReplaceAll(value, "%s", other) }
	env := []string{"LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:0", "TLS_CERT_FILE=pki/server.crt", "TLS_KEY_FILE=pki/server.key", "TLS_CLIENT_CA_FILE=pki/ca.crt"}
	c := &rig{path: filepath.Join(dir, "dragontls.env")}
	c.write(t, env)
	c.instance = &instance{process: dragontls(t, dir, []string{"serve", "--env-file", c.path}, nil), dir: dir}
	c.admin, _ = c.wantLog("listening")["admin"].(string)
	for _, v := range config.Variables() {
		for _, name := range []string{v.Name, v.Twin} {
			if v.Live || name == "" {
				continue
			}
			value, ok := afterRestart[name]
			if !ok {
				t.Errorf("%s: no value to change it to", name)
				continue
			}
			settings := []string{name + "=" + fill(value)}
			for _, s := range alongside[name] {
				settings = append(settings, fill(s))
			}
			for _, s := range env {
				if !strings.HasPrefix(s, name+"=") {
					settings = append(settings, s)
				}
			}
			c.change(settings...)
			if c.metrics().sum("last_reload_successful", "of", "settings") != 1 {
				t.Fatalf("%s=%s: refused:\n%s", name, value, &c.stderr)
			}
			told := slices.ContainsFunc(c.logged("setting changed: it takes effect after a restart"), func(line map[string]any) bool {
				return line["variable"] == config.Prefix+name && line["level"] == "warn"
			})
			if !told {
				t.Errorf("the log does not say that %s needs a restart", name)
			}
		}
	}
	c.end()
}

// A file with a fault changes nothing, and everybody who looks is told why.
func TestAFaultKeepsTheLastGoodSettings(t *testing.T) {
	t.Parallel()
	r := redisServer(t)
	c := configured(t, r, r.url(), "MAX_CONNECTIONS=1", "DENY_COMMANDS=+KEYS")
	a := c.pong()
	c.change("MAX_CONNECTIONS=2", "DENY_COMMANDS=none", "MAX_ARGS=many", "BACKEND_PASSWORD="+marker+" #x")
	wantAnswer(t, a, "KEYS none", "-NOPERM ")
	c.wantRefusal("MAX_CONNECTIONS")
	var faults []string
	for _, line := range c.logged("settings have a fault: none of them is followed") {
		faults = append(faults, fmt.Sprint(line["level"], line["file"], line["subject"], line["finding"], line["cure"]))
	}
	wantParts(t, strings.Join(faults, "\n"), "error"+c.path, "DRAGONTLS_MAX_ARGS=\"many\" ("+c.path+":3)", "a whole number", c.path+":4", "single quotes")
	c.wantMetric(1, "reload_total", "of", "settings", "result", "failed", "reason", "settings")
	c.wantMetric(0, "last_reload_successful", "of", "settings")
	c.wantAtLeast(1, "reload_held_since_seconds", "of", "settings", "file", c.path)
	if code, body := c.get("/readyz"); code != 200 || !strings.Contains(body, "settings of "+c.path) {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if line := c.wantLog("reload"); line["ok"] != false {
		t.Errorf("got %v", line)
	}
	wantNoMarker(t, c.instance)
	if err := os.Remove(c.path); err != nil {
		t.Fatal(err)
	}
	c.signal(syscall.SIGHUP)
	c.wantMetric(2, "reload_total", "of", "settings", "result", "failed")
	c.reads = 2
	c.change("MAX_CONNECTIONS=2")
	c.wantMetric(1, "last_reload_successful", "of", "settings")
	if c.metrics().has("reload_held_since_seconds") {
		t.Error("the settings are still held back")
	}
	wantAnswer(t, c.pong(), "KEYS none", "*0\r\n")
	c.end()
}

func TestCheckReadsTheFileOfSettings(t *testing.T) {
	t.Parallel()
	dir := ownPKI(t, newCA(t, "check"))
	path := filepath.Join(dir, "dragontls.env")
	text := ""
	for _, s := range proxyVars("redis://:" + marker + "@127.0.0.1:1") {
		text += config.Prefix + s + "\n"
	}
	write(t, path, []byte(text+"GOGC=50\n"))
	if err := os.Chmod(path, 0o646); err != nil {
		t.Fatal(err)
	}
	out, code := dragontlsOutput(t, dir, []string{"check", "--no-backend", "--env-file", path}, []string{"LISTEN=127.0.0.1:9"})
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	wantParts(t, out, "DRAGONTLS_BACKEND_URL: is a secret in "+path, "[env_file_mode]", "DRAGONTLS_LISTEN: in "+path+":1 is not used", "[env_file_overridden]",
		"GOGC", "[env_file_ignored]", "[file_writable]")
	if strings.Contains(out, marker) {
		t.Error("the password is shown")
	}
	p := dragontls(t, dir, []string{"check", "--env-file", path + ".none"}, nil)
	p.wantExit(exitConfig)
	wantParts(t, p.stderr.String(), "--env-file=", ".none", "no such file")
	for _, args := range [][]string{{"serve", "--env-file"}, {"serve", "--envfile", path}, {"serve", path}} {
		dragontls(t, dir, args, nil).wantExit(exitConfig)
	}
}
