//go:build unix

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// receiver is a webhook that keeps what it is told.
type receiver struct {
	mu    sync.Mutex
	texts []string
}

func (r *receiver) ServeHTTP(_ http.ResponseWriter, request *http.Request) {
	var message struct{ Text string }
	if request.Header.Get("Content-Type") == "application/json" {
		json.NewDecoder(request.Body).Decode(&message)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, message.Text)
}

// with returns the texts that contain all parts.
func (r *receiver) with(parts ...string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
next:
	for _, text := range r.texts {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				continue next
			}
		}
		found = append(found, text)
	}
	return found
}

func TestWebhookHearsOfExpiryAndOfFailedReloads(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "alerts")
	dir := t.TempDir()
	leaf := serverLeaf()
	leaf.NotBefore, leaf.NotAfter = time.Now().Add(-50*time.Minute), time.Now().Add(10*time.Minute)
	ending := issueLeaf(t, ca, leaf)
	writeBoth(t, dir, ending)
	r := &receiver{}
	hook := httptest.NewServer(r)
	defer hook.Close()
	url := filepath.Join(dir, "webhook")
	write(t, url, []byte(hook.URL+"/services/"+marker+"\n"))
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	p := ownCA(t, ca, redisServer(t).url(), "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key, "TLS_RELOAD_INTERVAL=100ms", "ALERT_WEBHOOK_URL_FILE="+url)
	p.wantReady()

	line := p.wantLog("validity ends soon")
	if line["level"] != "warn" || line["role"] != "server" || line["file"] != cert || line["serial"] != ending.serial || line["cure"] == "" {
		t.Errorf("got %v", line)
	}
	heard := func(what string, parts ...string) {
		t.Helper()
		eventually(t, "the webhook hears "+what, func() bool { return len(r.with(parts...)) > 0 })
	}
	heard("of the end", "dragontls on "+hostname(), "server certificate ends in ", cert, "serial "+ending.serial, "Cure: ")

	good := issue(t, ca)
	rename(t, key, good.key)
	heard("of the failed reload", "FAILED", "mismatch", cert, "Cure: ")
	eventually(t, "the fault is found again and again", func() bool { return p.metrics().sum("last_reload_successful") == 0 })
	rename(t, cert, good.cert)
	heard("of the recovery", "server certificate files are good again")
	// A second fault and its alert come after all that the first one caused.
	rename(t, cert, good.cert[:len(good.cert)/2])
	heard("of the next failed reload", "FAILED", "parse")
	if all := r.with(); len(all) != 4 {
		t.Errorf("heard %d times, want 4:\n%s", len(all), strings.Join(all, "\n\n"))
	}
	if n := len(p.logged("validity ends soon")); n != 1 {
		t.Errorf("warned %d times, want once", n)
	}
	eventually(t, "four alerts are counted", func() bool { return p.metrics().sum("alerts_total", "result", "sent") == 4 })
	if other := p.metrics(); other.sum("alerts_total") != 4 {
		t.Errorf("alerts failed or dropped: %v", other.sum("alerts_total"))
	}
	wantNoMarker(t, p)
	p.wantEnd()
}
