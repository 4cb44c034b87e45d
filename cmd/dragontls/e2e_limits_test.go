//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/admin/statuspage"
)

// limitInStatus returns what /status.json says of a limit.
func (p *instance) limitInStatus(of string) (found statuspage.Limit) {
	p.t.Helper()
	code, body := p.get("/status.json")
	var s struct{ Limits []statuspage.Limit }
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
		p.t.Fatalf("/status.json: %d %v %s", code, err, body)
	}
	i := slices.IndexFunc(s.Limits, func(l statuspage.Limit) bool { return l.Of == of })
	if i < 0 {
		p.t.Fatalf("/status.json has no limit %s: %s", of, body)
	}
	return s.Limits[i]
}

// wantLimit wants the metrics and the page to say the same of a limit.
func (p *instance) wantLimit(of string, value, used, reached float64) {
	p.t.Helper()
	p.wantMetric(reached, "limit_reached_total", "of", of)
	p.wantMetric(value, "limit", "of", of)
	p.wantMetric(used, "limit_used", "of", of)
	l := p.limitInStatus(of)
	if l.Value == nil || float64(*l.Value) != value || l.Used == nil || float64(*l.Used) != used || float64(l.Reached) != reached || l.Name == "" {
		p.t.Errorf("/status.json: %+v, want %v of %v, reached %v times", l, used, value, reached)
	}
}

// limitLines returns the warnings about a limit.
func (p *instance) limitLines(name string) (found []map[string]any) {
	for line := range strings.Lines(p.stderr.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["limit"] == name && fields["level"] == "warn" {
			found = append(found, fields)
		}
	}
	return found
}

// A client beyond MAX_CONNECTIONS reads which limit it met, from any client library; log, metrics and /status.json tell the operator.
func TestLimitOfConnections(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode, "MAX_CONNECTIONS=3").wantReady()
		p.wantLimit("max_connections", 3, 0, 0)
		for range 3 {
			wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
		}
		const text = "ERR dragontls: the proxy has its most connections (MAX_CONNECTIONS)"
		late := session(t, p)
		io.WriteString(late, "PING\r\n")
		if got, err := io.ReadAll(late); string(got) != "-"+text+"\r\n" || err != nil {
			t.Errorf("got %q (%v), want the error and an orderly end", got, err)
		}
		if out, _ := tool(t, "", "", "redis-cli", append(p.flags(), "PING")...); !strings.Contains(out, text) {
			t.Errorf("redis-cli shows %q", out)
		}
		p.wantAtLeast(2, "sessions_closed_total", "reason", "max_connections")
		reached := p.metrics().sum("limit_reached_total", "of", "max_connections")
		if reached < 2 { // redis-cli may try twice
			t.Errorf("reached %v times", reached)
		}
		p.wantLimit("max_connections", 3, 3, reached)
		lines := p.limitLines("MAX_CONNECTIONS")
		if len(lines) == 0 || lines[0]["value"] != 3.0 || lines[0]["count"] != 1.0 || lines[0]["subject"] == nil || lines[0]["remote"] == nil {
			t.Errorf("logged %v", lines)
		}
		p.wantEnd()
	})
}

func TestLimitOfOneIdentityIsTold(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode, "MAX_CONNECTIONS_PER_IDENTITY=1").wantReady()
		wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
		out, _ := tool(t, "", "", "redis-cli", append(p.flags(), "PING")...)
		if !strings.Contains(out, "ERR dragontls: this client has its most connections (MAX_CONNECTIONS_PER_IDENTITY)") {
			t.Errorf("redis-cli shows %q", out)
		}
		p.wantAtLeast(1, "limit_reached_total", "of", "max_connections_per_identity")
		if lines := p.limitLines("MAX_CONNECTIONS_PER_IDENTITY"); len(lines) == 0 || lines[0]["client"] == nil || lines[0]["value"] != 1.0 {
			t.Errorf("logged %v", lines)
		}
		p.wantEnd()
	})
}

// Every limit is in the metrics from the start, and one without a value has none to compare with.
func TestEveryLimitIsWatched(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url()).wantReady()
	m := p.metrics()
	of := func(name string) map[string]float64 {
		found := map[string]float64{}
		for _, s := range m {
			if s.name == name {
				found[s.labels["of"]] = s.value
			}
		}
		return found
	}
	reached, value, used := of("limit_reached_total"), of("limit"), of("limit_used")
	wanted := []string{"backend_max_clients", "backend_max_connections", "descriptors", "max_connections", "max_connections_per_identity",
		"max_handshakes", "memory_limit", "memory_limit_per_identity"}
	if got := slices.Sorted(maps.Keys(reached)); !slices.Equal(got, wanted) {
		t.Errorf("limits %v, want %v", got, wanted)
	}
	for _, name := range wanted {
		if reached[name] != 0 {
			t.Errorf("%s was reached %v times", name, reached[name])
		}
		_, limited := value[name]
		if unlimited := name == "backend_max_clients" || name == "max_connections_per_identity"; limited == unlimited {
			t.Errorf("%s has the value %v", name, value[name])
		}
		if limited && used[name] >= value[name] {
			t.Errorf("%v of %v of %s are in use", used[name], value[name], name)
		}
	}
	p.wantEnd()
}

// Thousands of refused handshakes leave a few lines, and their number.
func TestRefusedHandshakesDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url()).wantReady()
	const tries = 300
	for range tries {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, "PING\r\n")
		if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "-ERR dragontls: this port speaks TLS only") {
			t.Fatalf("got %q", got)
		}
		c.Close()
	}
	told := func() (n int) {
		for _, line := range p.logged("and more handshakes refused") {
			if more, ok := line["more"].(float64); ok && line["reason"] == "plaintext" {
				n += int(more)
			}
		}
		return n
	}
	eventually(t, "every refusal is a line or counted", func() bool { return len(p.logged("handshake refused"))+told() == tries })
	lines := p.logged("handshake refused")
	at := func(i int) time.Time {
		when, err := time.Parse(time.RFC3339, fmt.Sprint(lines[i]["time"]))
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	if seconds := 2 + int(at(len(lines)-1).Sub(at(0)).Seconds()); len(lines) > 20*seconds {
		t.Errorf("%d lines in %d seconds", len(lines), seconds)
	}
	p.wantMetric(tries, "handshakes_total", "reason", "plaintext")
	p.wantEnd()
}

// A command that is denied is counted by what denied it; each kind is there from the start.
func TestDeniedCommandsAreWatched(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode).wantReady()
		for _, by := range []string{"authentication", "deny_commands", "form", "transaction", "users_file"} {
			if n := slices.IndexFunc(p.metrics(), func(s sample) bool { return s.name == "commands_denied_total" && s.labels["by"] == by }); n < 0 {
				t.Errorf("no counter of %s", by)
			}
		}
		if out := p.cli(t, "", "SHUTDOWN", "secret-argument"); !strings.Contains(out, "NOPERM") {
			t.Errorf("got %q", out)
		}
		p.wantMetric(1, "commands_denied_total", "by", "deny_commands")
		p.wantMetric(1, "commands_denied_total")
		line := p.wantLog("command denied")
		if line["command"] != "SHUTDOWN" || line["by"] != "deny_commands" || line["client"] == nil || line["identity"] == nil {
			t.Errorf("logged %v", line)
		}
		if strings.Contains(p.stderr.String(), "secret-argument") {
			t.Error("an argument is in the log")
		}
		p.wantEnd()
	})
}

// The line about a refused certificate leads to the one who shows it.
func TestRefusedCertificateIsNamed(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url()).wantReady()
	ca := newCA(t, "another")
	certFile, keyFile := pair(t, ca, pki.Leaf{CN: "mallory", Client: true, DNS: []string{"m.example"}})
	out, _ := tool(t, "", "", "redis-cli", "--tls", "--insecure", "--sni", "localhost", "--cert", certFile, "--key", keyFile, "-p", p.port(), "PING")
	if strings.Contains(out, "PONG") {
		t.Fatal("it was let in")
	}
	line := p.wantLog("handshake refused")
	for field, want := range map[string]string{"reason": "unknown_ca", "subject": "CN=mallory", "issuer": "CN=another", "sni": "localhost", "sans": "[dns:m.example]"} {
		if got := fmt.Sprint(line[field]); got != want {
			t.Errorf("%s: got %s, want %s", field, got, want)
		}
	}
	if serial, sum := fmt.Sprint(line["serial"]), fmt.Sprint(line["sha256"]); len(serial) < 8 || len(sum) != 64 {
		t.Errorf("serial %s, SHA-256 %s", serial, sum)
	}
	p.wantEnd()
}
