package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func envFile(t *testing.T, text string) (path string, f *EnvFile) {
	t.Helper()
	path = write(t, filepath.Join(t.TempDir(), "dragontls.env"), text)
	return path, ReadEnvFile(path)
}

func loadFile(t *testing.T, text string, pairs ...string) (path string, c Config, err error) {
	t.Helper()
	path, f := envFile(t, text)
	c, err = loadOn(bigMachine, environment(t, pairs...), f)
	return path, c, err
}

func TestEnvFileSetsWhatTheEnvironmentDoesNot(t *testing.T) {
	path, c, err := loadFile(t, "# limits\n\n DRAGONTLS_MAX_ARGS = 7\r\nexport DRAGONTLS_LISTEN=:1\nDRAGONTLS_IDLE_TIMEOUT='3s'\nDRAGONTLS_LOG_LEVEL=\"warn\"\nDRAGONTLS_ADMIN_LISTEN=\n"+
		"DRAGONTLS_MAX_CONNECTIONS=9\nDRAGONTLS_AUDIT_LOG=off\nGOMEMLIMIT=1GiB\n", "LISTEN=:2", "MAX_CONNECTIONS=9", "AUDIT_LOG=")
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxArgs != 7 || c.Listen != ":2" || c.IdleTimeout != 3*time.Second || c.LogLevel != "warn" || c.AdminListen != "" || c.MaxConnections != 9 || c.AuditLog != "connections" {
		t.Errorf("got %+v", c)
	}
	var notes []string
	for _, n := range c.Notes {
		notes = append(notes, n.String())
	}
	want := []string{
		"DRAGONTLS_AUDIT_LOG in " + path + ":9 is not used: the environment sets it too, and wins",
		"DRAGONTLS_LISTEN in " + path + ":4 is not used: the environment sets it too, and wins",
		path + ": GOMEMLIMIT: only variables that begin with DRAGONTLS_ are read from the file; set others in the environment",
	}
	if got := strings.Join(notes, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got notes\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// A value stands in the Config as it stands in the file, or it is a fault: nothing is replaced in silence.
func TestEnvFileNeverChangesAValue(t *testing.T) {
	for _, test := range []struct{ written, want string }{ // want is empty for a fault
		{`pass`, `pass`},
		{`'pass'`, `pass`},
		{`"pass"`, `pass`},
		{`a b`, `a b`},
		{`a#b`, `a#b`},
		{`a$b`, `a$b`},
		{`a=b==`, `a=b==`},
		{`'a $B #c \n ${D} "'`, `a $B #c \n ${D} "`},
		{`"it's"`, `it's`},
		{`a"b`, `a"b`},
		{`a\b`, `a\b`},
		{`a #b`, ``},
		{`a$B`, ``},
		{`a${B}`, ``},
		{`a\$B`, ``},
		{`"a\nb"`, ``},
		{`"a$B"`, ``},
		{`"a`, ``},
		{`'a`, ``},
		{`'it's'`, ``},
		{`''a''`, ``},
		{`"a" #b`, ``},
		{`'a' b=c`, ``},
	} {
		path, c, err := loadFile(t, "# first\nDRAGONTLS_BACKEND_PASSWORD="+test.written+"\n")
		if test.want != "" {
			if err != nil || string(c.BackendPassword) != test.want {
				t.Errorf("%s: got %q and %v, want %q", test.written, string(c.BackendPassword), err, test.want)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: got %q, want a fault", test.written, string(c.BackendPassword))
		} else if got := err.Error(); !strings.Contains(got, "DRAGONTLS_BACKEND_PASSWORD (hidden) ("+path+":2)") || !strings.Contains(got, "single quotes") {
			t.Errorf("%s: got %q, want the variable, the line and a cure", test.written, got)
		}
	}
}

func TestFaultsOfAnEnvFileNameTheLine(t *testing.T) {
	text := strings.Join([]string{
		"DRAGONTLS_MAX_ARGS=many",                   // 1
		"DRAGONTLS_MAX_ARG=3",                       // 2
		"secretpassword",                            // 3
		"DRAGONTLS_LOG_LEVEL: info",                 // 4
		"DRAGONTLS_MAX_BULK=1mb",                    // 5
		"DRAGONTLS_MAX_BULK=2mb",                    // 6
		"DRAGONTLS_X_SERVICE_HOST=10.0.0.1",         // 7
		"=secretpassword",                           // 8
		"DRAGONTLS_ALERT_WEBHOOK_URL=secretpasswor", // 9
		"DRAGONTLS_IDLE TIMEOUT=secretpassword",     // 10
	}, "\n")
	path, _, err := loadFile(t, text)
	if err == nil {
		t.Fatal("no fault")
	}
	got := err.Error()
	for _, want := range []string{
		`DRAGONTLS_MAX_ARGS="many" (` + path + `:1): a whole number, 1 to 1048576`,
		`DRAGONTLS_MAX_ARG (hidden) (` + path + `:2): no variable of this version; did you mean DRAGONTLS_MAX_ARGS?`,
		path + `:3 (hidden): NAME=VALUE`,
		path + `:4 (hidden): NAME=VALUE`,
		`DRAGONTLS_MAX_BULK (hidden) (` + path + `:6): set only once, and line 5 sets it too`,
		`DRAGONTLS_X_SERVICE_HOST (hidden) (` + path + `:7): no variable of this version`,
		path + `:8 (hidden): NAME=VALUE`,
		`DRAGONTLS_ALERT_WEBHOOK_URL (hidden) (` + path + `:9): an http:// or https:// URL`,
		path + `:10 (hidden): NAME=VALUE`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if strings.Contains(got, "secretpasswor") {
		t.Errorf("a secret is shown:\n%s", got)
	}
}

func TestEnvFileThatCannotBeRead(t *testing.T) {
	missing, dir := filepath.Join(t.TempDir(), "none"), t.TempDir()
	long := write(t, filepath.Join(t.TempDir(), "long"), strings.Repeat("#\n", maxEnvFile/2+1))
	for path, want := range map[string]string{missing: "no such file", dir: "not a regular file", long: "longer than"} {
		_, err := loadOn(bigMachine, environment(t), ReadEnvFile(path))
		faults, ok := errors.AsType[Faults](err)
		if !ok || len(faults) != 1 || faults[0].Variable != "--env-file" || faults[0].Value != path || !strings.Contains(faults[0].Accepted, want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	if f := ReadEnvFile(""); f != nil || f.Value("LISTEN") != "" {
		t.Errorf("without a file: got %v", f)
	}
}

func TestSecretInAFileThatEverybodyMayRead(t *testing.T) {
	for _, test := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"BACKEND_PASSWORD=p", 0o644, "BACKEND_PASSWORD"},
		{"BACKEND_PASSWORD=p", 0o640, ""},
		{"BACKEND_PASSWORD=", 0o644, ""},
		{"BACKEND_URL=redis://u:p@h", 0o604, "BACKEND_URL"},
		{"BACKEND_URL=redis://h", 0o644, ""},
		{"ALERT_WEBHOOK_URL=https://h/secret", 0o644, "ALERT_WEBHOOK_URL"},
		{"CLIENT_PASSWORD=refuse", 0o644, ""},
		{"MAX_ARGS=3", 0o644, ""},
	} {
		path := write(t, filepath.Join(t.TempDir(), "env"), Prefix+test.text)
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		c, err := loadOn(bigMachine, environment(t), ReadEnvFile(path))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, n := range c.Notes {
			if n.Kind == NoteEnvFileMode {
				got += strings.TrimPrefix(n.Variable, Prefix)
			}
		}
		if got != test.want {
			t.Errorf("%s with mode %o: got a warning about %q, want %q", test.text, test.mode, got, test.want)
		}
	}
}

func TestFollowTakesOnlyWhatIsLive(t *testing.T) {
	environ := environment(t)
	one, err := loadOn(bigMachine, environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, file := envFile(t, "DRAGONTLS_LISTEN=:7\nDRAGONTLS_MAX_ARGS=7\nDRAGONTLS_DENY_COMMANDS=KEYS\n")
	two, err := loadOn(bigMachine, environ, file)
	if err != nil {
		t.Fatal(err)
	}
	got, changes := one.Follow(two)
	if got.Listen != one.Listen || got.MaxArgs != 7 || len(got.DenyCommands) != 1 || one.MaxArgs == 7 {
		t.Errorf("got %+v", got)
	}
	want := []Change{{Prefix + "LISTEN", false}, {Prefix + "DENY_COMMANDS", true}, {Prefix + "MAX_ARGS", true}}
	if len(changes) != 3 || changes[0] != want[0] || changes[1] != want[1] || changes[2] != want[2] {
		t.Errorf("got %v, want %v", changes, want)
	}
	if _, again := got.Follow(two); len(again) != 1 || again[0] != want[0] {
		t.Errorf("the second time got %v, want what still waits for a restart", again)
	}
}

// The content of BACKEND_URL_FILE is followed without a restart, so it is no change of a variable.
func TestFollowSaysNothingOfTheContentOfAFile(t *testing.T) {
	url := write(t, filepath.Join(t.TempDir(), "url"), "redis://:one@h")
	environ := environment(t, "BACKEND_URL_FILE="+url)
	one, err := loadOn(bigMachine, environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, url, "redis://:two@h")
	two, err := loadOn(bigMachine, environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, changes := one.Follow(two); len(changes) != 0 {
		t.Errorf("got %v", changes)
	}
}

func TestNetworksOfLoadBalancers(t *testing.T) {
	c := mustLoad(t, "PROXY_PROTOCOL_FROM=10.1.2.3/8, 192.0.2.1,fd00::/8,::1")
	if got := fmt.Sprint(c.ProxyProtocolFrom); got != "[10.0.0.0/8 192.0.2.1/32 fd00::/8 ::1/128]" || len(c.Notes) != 0 {
		t.Errorf("got %s and %v", got, c.Notes)
	}
	for _, all := range []string{"0.0.0.0/0", "10.0.0.0/8,::/0"} {
		if c := mustLoad(t, "PROXY_PROTOCOL_FROM="+all); len(c.Notes) != 1 || c.Notes[0].Kind != NoteProxyFromAll {
			t.Errorf("%s: notes %v", all, c.Notes)
		}
	}
	for _, bad := range []string{"10.0.0.0/33", "balancer", "10.0.0.0/8,", "fe80::1%eth0", "::ffff:10.0.0.0/104", "10.0.0.0/8;10.1.0.0/16"} {
		if got := faultsOf(t, "PROXY_PROTOCOL_FROM="+bad).Error(); !strings.Contains(got, "DRAGONTLS_PROXY_PROTOCOL_FROM=") || !strings.Contains(got, "comma-separated list") {
			t.Errorf("%s: got %s", bad, got)
		}
	}
	if c := mustLoad(t); c.ProxyProtocolFrom != nil {
		t.Errorf("unset: got %v", c.ProxyProtocolFrom)
	}
}
