package admin

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// recorder is a Control that notes what it was asked.
type recorder struct {
	mu    sync.Mutex
	asked []string
}

func (r *recorder) note(words ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, strings.Join(words, " "))
}

func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := strings.Join(r.asked, ";")
	r.asked = nil
	return all
}

func (r *recorder) control() *Control {
	return &Control{
		Kill: func(by, identity, address string) (int, error) {
			if identity == "bad" {
				return 0, errors.New("a bad pattern")
			}
			r.note("kill", identity, address)
			return 2, nil
		},
		Reload: func(by string) (bool, error) {
			r.note("reload", strings.Split(by, ":")[0])
			return true, nil
		},
		Drain: func(string) { r.note("drain") },
		SetLevel: func(by, level string) error {
			if level != "debug" {
				return errors.New("level: one of debug")
			}
			r.note("level", level)
			return nil
		},
	}
}

func operator(r *http.Request) { r.Header.Set(OperatorHeader, "1") }

func TestOperatorsMayChange(t *testing.T) {
	var r recorder
	url := start(t, Options{Control: r.control(), Log: zerolog.Nop()}, false)
	for _, tt := range []struct {
		target string
		code   int
		answer string
		asked  string
	}{
		{"/kill?identity=cn:web-*", 200, `{"killed":2}`, "kill cn:web-* "},
		{"/kill?address=10.0.0.0/8", 200, `{"killed":2}`, "kill  10.0.0.0/8"},
		{"/kill?identity=bad", 400, `{"error":"a bad pattern"}`, ""},
		{"/kill", 400, textOneTarget, ""},
		{"/kill?identity=", 400, textOneTarget, ""},
		{"/kill?identity=a&identity=b", 400, textOneTarget, ""},
		{"/kill?identity=a&address=::1", 400, textOneTarget, ""},
		{"/kill?identity=*&adress=::1", 400, textOneTarget, ""},
		{"/reload", 200, `{"ok":true,"changed":true}`, "reload 127.0.0.1"},
		{"/drain", 202, `{"draining":true}`, "drain"},
		{"/log-level?level=debug", 200, `{"level":"debug"}`, "level debug"},
		{"/log-level?level=loud", 400, `{"error":"level: one of debug"}`, ""},
		{"/log-level", 400, "one of", ""},
	} {
		got := ask(t, http.MethodPost, url+tt.target, operator)
		if asked := r.take(); got.code != tt.code || !strings.Contains(got.text, tt.answer) || got.header.Get("Content-Type") != "application/json" || asked != tt.asked {
			t.Errorf("%s: got %d %q, asked %q", tt.target, got.code, got.text, asked)
		}
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions} {
			if got := ask(t, method, url+tt.target, operator); got.code != http.StatusMethodNotAllowed || r.take() != "" {
				t.Errorf("%s %s: got %d", method, tt.target, got.code)
			}
		}
	}
}

// A page in a browser on the operator's machine can have it send requests here.
func TestWebPagesChangeNothing(t *testing.T) {
	var r recorder
	token := func() (string, error) { return "secret", nil }
	local := start(t, Options{Control: r.control(), Token: token, Log: zerolog.Nop()}, false)
	public := start(t, Options{Control: r.control(), Token: token, Log: zerolog.Nop()}, true)
	bare := start(t, Options{Control: r.control(), Log: zerolog.Nop()}, true)
	set := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
			r.Host = r.Header.Get("Host")
		}
	}
	bearer := []string{"Authorization", "Bearer secret", OperatorHeader, "1"}
	for name, tt := range map[string]struct {
		url  string
		edit func(*http.Request)
		code int
	}{
		"without the header":              {local, nil, 403},
		"of another site":                 {local, set(OperatorHeader, "1", "Origin", "https://evil.example"), 403},
		"of a sandboxed page":             {local, set(OperatorHeader, "1", "Origin", "null"), 403},
		"of the status page's own site":   {local, set(OperatorHeader, "1", "Origin", local), 403},
		"cross-site":                      {local, set(OperatorHeader, "1", "Sec-Fetch-Site", "cross-site"), 403},
		"of this site":                    {local, set(OperatorHeader, "1", "Sec-Fetch-Site", "same-origin"), 403},
		"by a name that was rebound":      {local, set(OperatorHeader, "1", "Host", "evil.example"), 403},
		"off loopback, without a token":   {public, operator, 401},
		"off loopback, with a wrong one":  {public, set(OperatorHeader, "1", "Authorization", "Bearer other"), 401},
		"off loopback, with a password":   {public, set(OperatorHeader, "1", "Authorization", "Basic eDpzZWNyZXQ="), 401},
		"off loopback, no header":         {public, set("Authorization", "Bearer secret"), 403},
		"off loopback, there is no token": {bare, operator, 403},
		"off loopback, as it should be":   {public, set(bearer...), 200},
		"on loopback, as it should be":    {local, operator, 200},
	} {
		got := ask(t, http.MethodPost, tt.url+"/kill?identity=*", tt.edit)
		if asked := r.take(); got.code != tt.code || (asked != "") != (tt.code == 200) {
			t.Errorf("%s: got %d %s, asked %q", name, got.code, got.text, asked)
		}
		if got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got %v", name, got.header)
		}
	}
}
