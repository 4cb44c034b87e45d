package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dragontls/proxy/admin/statuspage"
)

// statusOfOne is the status of a dragontls with one session.
func statusOfOne(q statuspage.Query) *statuspage.Status {
	return &statuspage.Status{
		About: statuspage.About{Schema: statuspage.Schema}, Health: statuspage.Health{Ready: true},
		Sessions: q.Select([]statuspage.Session{{ID: 1, Identity: "cn:<script>alert(1)</script>"}}),
	}
}

func TestStatusIsServedAsJSONAndAsAPage(t *testing.T) {
	url := start(t, Options{Status: statusOfOne}, false)
	got := ask(t, "GET", url+"/status.json?filter=nobody", nil)
	var s statuspage.Status
	if err := json.Unmarshal([]byte(got.text), &s); err != nil || got.code != 200 || got.header.Get("Content-Type") != "application/json" ||
		s.Schema != statuspage.Schema || s.Sessions.Total != 1 || s.Sessions.Matched != 0 {
		t.Errorf("got %d %v %s", got.code, err, got.text)
	}
	page := ask(t, "GET", url+"/?filter=SCRIPT", nil)
	if page.code != 200 || page.header.Get("Content-Type") != "text/html; charset=utf-8" || page.header.Get("Content-Security-Policy") != statuspage.Policy() ||
		page.header.Get("X-Frame-Options") != "DENY" || page.header.Get("Cache-Control") != "no-store" || page.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %d %v", page.code, page.header)
	}
	if !strings.Contains(page.text, "cn:&lt;script&gt;alert(1)") || strings.Contains(page.text, "<script>alert") {
		t.Errorf("got %s", page.text)
	}
	many := func(path string) (rows int) {
		many := func(q statuspage.Query) *statuspage.Status {
			return &statuspage.Status{Sessions: q.Select(make([]statuspage.Session, maxRows+1))}
		}
		text := ask(t, "GET", start(t, Options{Status: many}, false)+path+"?limit=10000", nil).text
		return strings.Count(text, `data-label="Identity"`) + strings.Count(text, `"identity":`)
	}
	if page, all := many("/"), many("/status.json"); page != maxRows || all != maxRows+1 {
		t.Errorf("%d rows on the page and %d in JSON", page, all)
	}
	for _, path := range []string{"/", "/status.json"} {
		if got := ask(t, "GET", url+path+"?sort=x", nil); got.code != 400 || !strings.HasPrefix(got.text, "sort: one of address, ") {
			t.Errorf("%s: got %d %q", path, got.code, got.text)
		}
		if got := ask(t, "POST", url+path, nil); got.code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: got %d", path, got.code)
		}
	}
}

func TestPageOnLoopbackIsOpenToItsOwnNamesOnly(t *testing.T) {
	h := newHandler(Options{Listen: "proxy.example:9380", Status: statusOfOne}, true)
	for host, want := range map[string]int{
		"localhost:9380": 200, "127.0.0.1:9380": 200, "[::1]:9380": 200, "proxy.example:9380": 200, "PROXY.example": 200,
		"evil.example:9380": 403, "proxy.example.evil.example": 403, "xproxy.example": 403,
	} {
		for _, path := range []string{"/", "/status.json"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", path, nil)
			r.Host = host
			h.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s as %q: got %d, want %d", path, host, w.Code, want)
			}
		}
	}
	w := httptest.NewRecorder() // without a name there is no other one
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = "proxy.example"
	newHandler(Options{Listen: ":9380", Status: statusOfOne}, true).ServeHTTP(w, r)
	if w.Code != 403 {
		t.Errorf("got %d", w.Code)
	}
}

// A browser cannot be told to send a token: off loopback it asks for a password. Only the page takes one.
func TestPageOffLoopbackTakesTheTokenAsAPassword(t *testing.T) {
	url := start(t, Options{Status: statusOfOne, Token: func() (string, error) { return "secret", nil }}, true)
	get := func(path string, login func(*http.Request)) reply {
		return ask(t, "GET", url+path, func(r *http.Request) {
			r.Host = "dragontls.example"
			login(r)
		})
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer secret") }
	password := func(text string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth("anybody", text) }
	}
	for _, path := range []string{"/", "/status.json", "/metrics"} {
		got := get(path, func(*http.Request) {})
		if offers := strings.Join(got.header.Values("WWW-Authenticate"), "; "); got.code != 401 || strings.Contains(offers, "Basic") != (path == "/") || !strings.HasPrefix(offers, "Bearer") {
			t.Errorf("%s without a token: got %d, offers %q", path, got.code, offers)
		}
		if got := get(path, bearer); got.code != 200 {
			t.Errorf("%s with the token: got %d", path, got.code)
		}
		if got := get(path, password("wrong")); got.code != 401 {
			t.Errorf("%s with a wrong password: got %d", path, got.code)
		}
		if got := get(path, password("secret")); (got.code == 200) != (path == "/") {
			t.Errorf("%s with the token as password: got %d", path, got.code)
		}
	}
}

func TestPageOffLoopbackWithoutATokenSaysWhatToSet(t *testing.T) {
	got := ask(t, "GET", start(t, Options{Status: statusOfOne}, true)+"/", nil)
	if got.code != 403 || !strings.Contains(got.text, "DRAGONTLS_ADMIN_TOKEN_FILE") {
		t.Errorf("got %d %q", got.code, got.text)
	}
}
