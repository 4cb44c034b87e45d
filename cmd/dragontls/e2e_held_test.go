//go:build unix

package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/admin/statuspage"
)

// A typo in ALLOW_FILE does not keep a revoked client connected. Whoever looks at
// /readyz, /status.json, the metrics or the log learns which file is held back.
func TestATypoHoldsNoRevocationBack(t *testing.T) {
	t.Parallel()
	ca, dir := newCA(t, "held"), t.TempDir()
	crl := func(revoked ...*big.Int) []byte {
		list, err := ca.CRL(pki.CRLOptions{Revoked: revoked})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	allow, list := filepath.Join(dir, "allow"), filepath.Join(dir, "ca.crl")
	write(t, allow, []byte("cn:*\n"))
	write(t, list, crl())
	p := ownCA(t, ca, redisServer(t).url(), "ALLOW_FILE="+allow, "TLS_CRL_FILE="+list, "TLS_RELOAD_INTERVAL=100ms").wantReady()
	if _, body := p.get("/readyz"); body != "ready\n" {
		t.Errorf("/readyz says %q while nothing is held back", body)
	}
	live, err := tls.Dial("tcp", p.addr, p.clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := io.WriteString(live, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(live, make([]byte, len("+PONG\r\n"))); err != nil {
		t.Fatal(err)
	}
	p.wantMetric(1, "connections", "state", "open")

	write(t, allow, []byte("cn:*\ncm:web\n"))
	p.wantMetric(1, "reload_total", "result", "failed", "reason", "allow")
	code, body := p.get("/readyz")
	if code != http.StatusOK || !strings.HasPrefix(body, "ready\n") || !strings.Contains(body, "allow of "+allow+" (allow)") || !strings.Contains(body, "cm:web") {
		t.Errorf("/readyz: %d %q", code, body)
	}
	since := p.metrics().sum("reload_held_since_seconds", "source", "allow", "file", allow, "reason", "allow", "of", "listener")
	if age := time.Since(time.Unix(int64(since), 0)); age < 0 || age > patience {
		t.Errorf("held back since %v", since)
	}
	var status struct {
		Reloads map[string]struct{ Held []statuspage.HeldSource }
	}
	if _, body := p.get("/status.json"); json.Unmarshal([]byte(body), &status) != nil || len(status.Reloads["listener"].Held) != 1 {
		t.Fatalf("/status.json: %s", body)
	}
	if h := status.Reloads["listener"].Held[0]; h.File != allow || h.Reason != "allow" || h.Since.IsZero() || !strings.Contains(h.Error, "cm:web") {
		t.Errorf("/status.json: %+v", h)
	}
	if line := p.wantLog("reload refused, the last good patterns stay"); line["file"] != allow || line["source"] != "allow" {
		t.Errorf("logged %v", line)
	}

	mine := p.clientTLS().Certificates[0].Leaf
	rename(t, list, crl(mine.SerialNumber))
	p.wantMetric(1, "sessions_closed_total", "reason", "certificate_revoked")
	if _, err := handshake(p.addr, p.clientTLS()); err == nil {
		t.Error("the revoked client gets in")
	}
	if line := p.wantLog("CRL reloaded"); line["file"] != list || line["entries"] != 1.0 {
		t.Errorf("logged %v", line)
	}
	if err := os.WriteFile(allow, []byte("cn:*\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is held back", func() bool { _, body := p.get("/readyz"); return body == "ready\n" })
	if n := p.metrics().sum("reload_held_since_seconds"); n != 0 {
		t.Errorf("still held back: %v", n)
	}
	p.wantEnd()
}
