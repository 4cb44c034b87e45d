package config

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var bigMachine = machine{descriptors: 1 << 20, memory: 8 << 30}

// environment makes files for the required variables and adds pairs to them,
// NAME=value without the prefix; "NAME" alone removes one.
func environment(t *testing.T, pairs ...string) []string {
	t.Helper()
	dir := t.TempDir()
	vars := map[string]string{}
	for name, file := range map[string]string{"TLS_CERT_FILE": "server.crt", "TLS_KEY_FILE": "server.key", "TLS_CLIENT_CA_FILE": "ca.crt"} {
		vars[name] = write(t, filepath.Join(dir, file), "pem")
	}
	for _, pair := range pairs {
		name, value, set := strings.Cut(pair, "=")
		if delete(vars, name); set {
			vars[name] = value
		}
	}
	environ := []string{"PATH=/bin", "HOME=/"}
	for name, value := range vars {
		environ = append(environ, Prefix+name+"="+value)
	}
	return environ
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(environ []string, m machine) (Config, error) { return loadOn(m, environ, nil) }

func mustLoad(t *testing.T, pairs ...string) Config {
	t.Helper()
	c, err := load(environment(t, pairs...), bigMachine)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func faultsOf(t *testing.T, pairs ...string) Faults {
	t.Helper()
	_, err := load(environment(t, pairs...), bigMachine)
	faults, ok := errors.AsType[Faults](err)
	if !ok {
		t.Fatalf("load %q: got %v, want Faults", pairs, err)
	}
	return faults
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t)
	c.TLSCertFiles, c.TLSKeyFiles, c.TLSClientCAFile = nil, nil, ""
	want := Config{
		Listen: ":6380", AdminListen: "127.0.0.1:9380",
		TLSClientAuth: tls.RequireAndVerifyClientCert,
		TLSMinVersion: tls.VersionTLS12, TLSMaxVersion: tls.VersionTLS13, TLSReloadInterval: 10 * time.Second,
		HandshakeTimeout: 10 * time.Second, MaxHandshakes: 8192, MaxConnections: 10000,
		WriteTimeout: 30 * time.Second, KeepAlive: 30 * time.Second, DrainTimeout: 25 * time.Second,
		Backend:               Backend{Network: "tcp", Address: "127.0.0.1:6379", Host: "127.0.0.1"},
		BackendConnectTimeout: 2 * time.Second, BackendMaxConnections: 20000, BackendMode: "shared", ClientPassword: "check", SessionBuffer: 4 << 20,
		DenyCommands: strings.Split("SYNC PSYNC REPLCONF DFLY DFLYCLUSTER DFLYMIGRATE REPLICAOF SLAVEOF ADDREPLICAOF REPLTAKEOVER FAILOVER MIGRATE MODULE|LOAD MODULE|LOADEX MODULE|UNLOAD SHUTDOWN", " "),
		MaxBulk:      512 << 20, MaxArgs: 65536, MemoryLimit: 4 << 30,
		TLSCRLExpired: "refuse", AuditLog: "connections", TLSOCSP: "off", ExpiryWarning: 720 * time.Hour,
		LogLevel: "info", LogFormat: "json",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestLoadReadsEveryKind(t *testing.T) {
	dir := t.TempDir()
	a, b := write(t, filepath.Join(dir, "a"), "x"), write(t, filepath.Join(dir, "b"), "x")
	c := mustLoad(t, "TLS_CERT_FILE="+a+", "+b, "TLS_KEY_FILE="+b+","+a, "TLS_CLIENT_AUTH=optional",
		"TLS_MIN_VERSION=1.3", "IDLE_TIMEOUT=1h30m", "MAX_BULK=64kib", "MAX_CONNECTIONS=7", "MEMORY_LIMIT=1gb",
		"DENY_COMMANDS=config|set, keys", "LISTEN=[::1]:0", "ADMIN_LISTEN=", "LOG_FORMAT=console")
	for _, test := range []struct{ got, want any }{
		{c.TLSCertFiles, []string{a, b}},
		{c.TLSKeyFiles, []string{b, a}},
		{c.TLSClientAuth, tls.VerifyClientCertIfGiven},
		{c.TLSMinVersion, uint16(tls.VersionTLS13)},
		{c.IdleTimeout, 90 * time.Minute},
		{c.MaxBulk, Size(65536)},
		{c.MaxConnections, 7},
		{c.BackendMaxConnections, 14},
		{c.MemoryLimit, Size(1 << 30)},
		{c.DenyCommands, []string{"CONFIG|SET", "KEYS"}},
		{c.Listen, "[::1]:0"},
		{c.AdminListen, ""},
		{c.LogFormat, "console"},
	} {
		if !reflect.DeepEqual(test.got, test.want) {
			t.Errorf("got %v, want %v", test.got, test.want)
		}
	}
	if len(c.Notes) != 2 || !strings.Contains(c.Notes[0].String(), `TLS_CLIENT_AUTH is "optional"`) || c.Notes[1].Kind != NoteDefaultsDropped {
		t.Errorf("got notes %q, want one for TLS_CLIENT_AUTH and one for DENY_COMMANDS", c.Notes)
	}
}

func TestEmptyMeansDefaultExceptForTheAdminListener(t *testing.T) {
	if c := mustLoad(t, "LISTEN=", "MAX_ARGS=", "DENY_COMMANDS="); c.Listen != ":6380" || c.MaxArgs != 65536 || len(c.DenyCommands) == 0 {
		t.Errorf("got %q, %d, %q", c.Listen, c.MaxArgs, c.DenyCommands)
	}
	if c := mustLoad(t, "DENY_COMMANDS=none"); c.DenyCommands != nil || len(c.Notes) != 1 {
		t.Errorf("got %q and notes %q, want none and one note", c.DenyCommands, c.Notes)
	}
}

func TestEachFaultNamesItsVariable(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "f"), "x\n")
	empty := write(t, filepath.Join(t.TempDir(), "empty"), "\n")
	url := write(t, filepath.Join(t.TempDir(), "url"), "http://x")
	for _, test := range []struct{ pairs, name, text string }{
		{"TLS_CERT_FILE", "TLS_CERT_FILE", "required"},
		{"TLS_KEY_FILE=", "TLS_KEY_FILE", "required"},
		{"TLS_CLIENT_CA_FILE", "TLS_CLIENT_CA_FILE", "TLS_CLIENT_AUTH=none"},
		{"TLS_CERT_FILE=/nowhere/x", "TLS_CERT_FILE", "no such file"},
		{"TLS_CERT_FILE=/", "TLS_CERT_FILE", "not a regular file"},
		{"TLS_CERT_FILE=" + file + ",/nowhere TLS_KEY_FILE=" + file + "," + file, "TLS_CERT_FILE", "entry 2"},
		{"TLS_CERT_FILE=" + file + "," + file, "TLS_KEY_FILE", "as many entries"},
		{"TLS_CERT_FILE=a,,b", "TLS_CERT_FILE", "empty entry"},
		{"TLS_CLIENT_AUTH=maybe", "TLS_CLIENT_AUTH", "require, optional or none"},
		{"TLS_MIN_VERSION=1.1", "TLS_MIN_VERSION", "nothing below TLS 1.2"},
		{"TLS_MAX_VERSION=3", "TLS_MAX_VERSION", "1.2 or 1.3"},
		{"TLS_MIN_VERSION=1.3 TLS_MAX_VERSION=1.2", "TLS_MIN_VERSION", "not above"},
		{"TLS_RELOAD_INTERVAL=10", "TLS_RELOAD_INTERVAL", "add the unit"},
		{"TLS_RELOAD_INTERVAL=1ms", "TLS_RELOAD_INTERVAL", "100ms to 24h"},
		{"HANDSHAKE_TIMEOUT=0", "HANDSHAKE_TIMEOUT", "1ms to 24h"},
		{"WRITE_TIMEOUT=-1s", "WRITE_TIMEOUT", "1ms to 24h"},
		{"IDLE_TIMEOUT=-1s", "IDLE_TIMEOUT", "0 to 87600h"},
		{"MAX_ARGS=1048577", "MAX_ARGS", "1 to 1048576"},
		{"MAX_ARGS=0", "MAX_ARGS", "1 to 1048576"},
		{"MAX_ARGS=many", "MAX_ARGS", "a whole number, 1 to 1048576"},
		{"MAX_ARGS=99999999999999999999", "MAX_ARGS", "1 to 1048576"},
		{"MAX_BULK=3gb", "MAX_BULK", "1 to 2gib"},
		{"MAX_BULK=0", "MAX_BULK", "1 to 2gib"},
		{"MAX_BULK=12 parsecs", "MAX_BULK", "powers of 1024"},
		{"MEMORY_LIMIT=1mb", "MEMORY_LIMIT", "at least 16mb"},
		{"MAX_HANDSHAKES=0", "MAX_HANDSHAKES", "1 to"},
		{"MAX_CONNECTIONS=600000 MEMORY_LIMIT=100gb", "MAX_CONNECTIONS", "raise the limit to 1201064"},
		{"LISTEN=6380", "LISTEN", "host:port"},
		{"LISTEN=:99999", "LISTEN", "host:port"},
		{"LISTEN=redis://u@h:1", "LISTEN", "host:port"},
		{"ADMIN_LISTEN=x", "ADMIN_LISTEN", "host:port"},
		{"ADMIN_LISTEN=:6380", "ADMIN_LISTEN", "another address"},
		{"ADMIN_LISTEN=unix://admin.sock", "ADMIN_LISTEN", "absolute"},
		{"ADMIN_LISTEN=unix:///run/", "ADMIN_LISTEN", "absolute"},
		{"ADMIN_LISTEN=unix:/run/admin.sock", "ADMIN_LISTEN", "unix:///path"},
		{"ADMIN_LISTEN=unix:///run/" + strings.Repeat("x", 84), "ADMIN_LISTEN", "at most 88 bytes"},
		{"LISTEN=unix:///run/clients.sock", "LISTEN", "host:port"},
		{"ADMIN_TOKEN_FILE=" + empty, "ADMIN_TOKEN_FILE", "empty"},
		{"BACKEND_MODE=magic", "BACKEND_MODE", "one of paired, shared"},
		{"BACKEND_LANES=-1", "BACKEND_LANES", "0 to 1024"},
		{"SESSION_BUFFER=1kb", "SESSION_BUFFER", "64kb to 1gib"},
		{"BACKEND_URL=redis://h BACKEND_URL_FILE=" + file, "BACKEND_URL", "not together"},
		{"BACKEND_URL_FILE=" + url, "BACKEND_URL_FILE", "begin with"},
		{"BACKEND_URL_FILE=" + empty, "BACKEND_URL_FILE", "empty"},
		{"BACKEND_PASSWORD=x BACKEND_PASSWORD_FILE=" + file, "BACKEND_PASSWORD", "not together"},
		{"BACKEND_PASSWORD_FILE=" + empty, "BACKEND_PASSWORD_FILE", "empty"},
		{"BACKEND_PASSWORD=x BACKEND_URL=redis://:y@h", "BACKEND_PASSWORD", "password in the URL"},
		{"BACKEND_USERNAME=app", "BACKEND_USERNAME", "only with a password"},
		{"BACKEND_USERNAME=a\r\nb BACKEND_PASSWORD=x", "BACKEND_USERNAME", "printable"},
		{"BACKEND_USERNAME=ä BACKEND_PASSWORD=x", "BACKEND_USERNAME", "printable"},
		{"BACKEND_USERNAME=app BACKEND_URL=redis://web:y@h", "BACKEND_USERNAME", "in one place"},
		{"BACKEND_CA_FILE=" + file, "BACKEND_CA_FILE", "only with a rediss://"},
		{"BACKEND_SERVER_NAME=db", "BACKEND_SERVER_NAME", "only with a rediss://"},
		{"BACKEND_URL=rediss://h BACKEND_CERT_FILE=" + file, "BACKEND_CERT_FILE", "only with DRAGONTLS_BACKEND_KEY_FILE"},
		{"BACKEND_URL=rediss://h BACKEND_KEY_FILE=" + file, "BACKEND_KEY_FILE", "only with DRAGONTLS_BACKEND_CERT_FILE"},
		{"DENY_COMMANDS=GET|A|B", "DENY_COMMANDS", "entry 1"},
		{"DENY_COMMANDS=GET,a*", "DENY_COMMANDS", "entry 2"},
		{"LOG_LEVEL=loud", "LOG_LEVEL", "trace, debug, info, warn, error"},
		{"LOG_FORMAT=xml", "LOG_FORMAT", "json, console"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pairs := strings.Split(test.pairs, " ")
			if strings.Contains(test.pairs, "parsecs") {
				pairs = []string{test.pairs}
			}
			faults := faultsOf(t, pairs...)
			if len(faults) != 1 || faults[0].Variable != Prefix+test.name || !strings.Contains(faults.Error(), test.text) {
				t.Errorf("%s: got\n%v\nwant one fault of %s with %q", test.pairs, faults, test.name, test.text)
			}
		})
	}
}

func TestAllFaultsAtOnceInTheOrderOfTheTable(t *testing.T) {
	faults := faultsOf(t, "LOG_LEVEL=loud", "LISTEN=6380", "TLS_KEY_FILE", "MAX_ARGS=x", "BACKEND_MODE=magic", "NO_SUCH_THING=1")
	var got []string
	for _, f := range faults {
		got = append(got, strings.TrimPrefix(f.Variable, Prefix))
	}
	want := []string{"NO_SUCH_THING", "LISTEN", "TLS_KEY_FILE", "BACKEND_MODE", "MAX_ARGS", "LOG_LEVEL"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if lines := strings.Count(faults.Error(), "\n") + 1; lines != len(want) {
		t.Errorf("got %d lines, want %d:\n%v", lines, len(want), faults)
	}
	if !strings.Contains(faults.Error(), `DRAGONTLS_LOG_LEVEL="loud": one of`) {
		t.Errorf("the value is missing:\n%v", faults)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "17": 17, "17b": 17, "4kb": 4096, "64KiB": 65536, "512mb": 512 << 20, "2gib": 2 << 30, "1Gi": 1 << 30, "1 tb": 1 << 40} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "mb", "-1", "1.5gb", "1m", "9223372036854775808", "9007199254740993kb", "8388608tb"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %d, want a fault", text, got)
		}
	}
	for _, n := range []Size{0, 1, 1000, 1024, 3 << 20, 5 << 30, 1<<40 + 1} {
		if got, err := parseSize(n.String()); got != n || err != nil {
			t.Errorf("%s: got %d, %v, want %d", n, got, err, n)
		}
	}
}
