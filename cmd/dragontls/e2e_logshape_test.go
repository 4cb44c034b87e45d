//go:build unix

package main

import (
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"testing"
)

// The log is read by machines: every line has the same shape.

var (
	milliseconds = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)$`)
	clock        = regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} [A-Z]{3} `)
	levels       = regexp.MustCompile(`^(trace|debug|info|warn|error|fatal)$`)
)

// wantShape wants that every line is a JSON object with a level, a time to the millisecond, a message and no severity.
func wantShape(t *testing.T, log string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		lines = append(lines, fields)
		level, _ := fields["level"].(string)
		at, _ := fields["time"].(string)
		if _, severity := fields["severity"]; severity || !levels.MatchString(level) || !milliseconds.MatchString(at) || fields["message"] == "" {
			t.Errorf("got %s", line)
		}
	}
	return lines
}

func TestEveryLineOfTheLogHasOneShape(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url(), "AUDIT_LOG=commands", "DENY_COMMANDS=FLUSHALL")
	l := p.live(p.clientTLS())
	l.Close()
	if c, err := net.Dial("tcp", p.addr); err == nil { // a refused handshake
		c.Write([]byte("PING\r\n"))
		c.Read(make([]byte, 1))
		c.Close()
	}
	p.wantLog("handshake refused")
	p.wantEnd()
	audited := map[string]bool{}
	for _, line := range wantShape(t, p.stderr.String()) {
		if kind, ok := line["audit"].(string); ok {
			audited[kind] = true
			if line["level"] != "info" {
				t.Errorf("got %v, want the level info", line)
			}
		}
	}
	if len(p.logged("deployment finding")) == 0 || !audited["accepted"] || !audited["command"] || !audited["ended"] {
		t.Errorf("lines are missing:\n%s", &p.stderr)
	}
}

func TestFatalFaultsAreLinesOfJSON(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := serving(t, "redis://127.0.0.1:1")
	p.wantEnd()
	for _, c := range []struct {
		vars    []string
		code    int
		message string
		parts   []string // of the subjects
	}{
		{[]string{"LISTEN=nonsense", "BACKEND_MODE=magic"}, exitConfig, "bad configuration", []string{"DRAGONTLS_LISTEN", "DRAGONTLS_BACKEND_MODE"}},
		{[]string{"LOG_FORMAT=jsn"}, exitConfig, "bad configuration", []string{"DRAGONTLS_LOG_FORMAT"}},
		{[]string{"TLS_KEY_FILE=pki/client.key", "TLS_CLIENT_CA_FILE=pki/client.crt"}, exitConfig, "bad configuration", []string{"pki/server.crt", "pki/client.crt"}},
		{[]string{"ALLOW=cm:web"}, exitConfig, "bad configuration", []string{"configuration"}},
		{[]string{"LISTEN=" + taken.Addr().String()}, exitFailed, "cannot listen", []string{"DRAGONTLS_LISTEN"}},
	} {
		for _, format := range []string{"", "LOG_FORMAT=json"} {
			vars := append(append(proxyVars("redis://127.0.0.1:1"), c.vars...), format)
			if format != "" && strings.HasPrefix(c.vars[0], "LOG_FORMAT") {
				continue
			}
			s := dragontls(t, p.dir, []string{"serve"}, vars)
			s.wantExit(c.code)
			subjects := ""
			for _, line := range wantShape(t, s.stderr.String()) {
				if line["level"] != "fatal" {
					continue
				}
				subjects += line["subject"].(string) + " "
				if line["message"] != c.message || line["finding"] == "" || line["id"] == "" {
					t.Errorf("got %v", line)
				}
			}
			wantParts(t, subjects, c.parts...)
		}
	}
	people := dragontls(t, p.dir, []string{"serve"}, append(proxyVars("redis://127.0.0.1:1"), "LISTEN=nonsense", "LOG_FORMAT=console"))
	people.wantExit(exitConfig)
	wantParts(t, people.stderr.String(), "dragontls: bad configuration\nDRAGONTLS_LISTEN=\"nonsense\": ")
}

func TestTheLogForPeopleHasMilliseconds(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	p.wantEnd()
	for line := range strings.Lines(p.stderr.String()) {
		if !clock.MatchString(line) {
			t.Errorf("got %q", line)
		}
	}
}
