package admin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves o until the test ends and returns the URL. A listener on 127.0.0.1
// counts as off loopback when public is set.
func start(t *testing.T, o Options, public bool) string {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	if public {
		s.http.Handler = newHandler(o, false)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		serving.Wait()
	})
	return "http://" + s.Addr().String()
}

type reply struct {
	code   int
	text   string
	header http.Header
}

func ask(t *testing.T, method, url string, edit func(*http.Request)) reply {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, string(body), resp.Header}
}

func TestHealth(t *testing.T) {
	var mu sync.Mutex
	var ready Readiness
	url := start(t, Options{Ready: func() Readiness { mu.Lock(); defer mu.Unlock(); return ready }}, true)
	for _, test := range []struct {
		ready Readiness
		path  string
		code  int
		text  string
	}{
		{Readiness{OK: true}, "/livez", 200, "alive\n"},
		{Readiness{Reason: "x"}, "/livez", 200, "alive\n"},
		{Readiness{OK: true}, "/readyz", 200, "ready\n"},
		{Readiness{Reason: "draining"}, "/readyz", 503, "not ready\ndraining\n"},
		{Readiness{Reason: "backend_dial", Detail: "dial 10.0.0.1"}, "/readyz", 503, "not ready\nbackend_dial\n"},
	} {
		mu.Lock()
		ready = test.ready
		mu.Unlock()
		// An orchestrator may use any name, and health needs no token.
		got := ask(t, "GET", url+test.path, func(r *http.Request) { r.Host = "pod.example" })
		if got.code != test.code || got.text != test.text {
			t.Errorf("%+v: got %d %q", test, got.code, got.text)
		}
		if got := ask(t, "HEAD", url+test.path, nil); got.code != test.code || got.text != "" {
			t.Errorf("HEAD %+v: got %d %q", test, got.code, got.text)
		}
	}
}

func TestDetailIsShownOnLoopbackOnly(t *testing.T) {
	o := Options{Ready: func() Readiness { return Readiness{Reason: "backend_dial", Detail: "two\nlines"} }}
	if got := ask(t, "GET", start(t, o, false)+"/readyz", nil); got.text != "not ready\nbackend_dial\ntwo lines\n" {
		t.Errorf("on loopback: %q", got.text)
	}
	if got := ask(t, "GET", start(t, o, true)+"/readyz", nil); got.text != "not ready\nbackend_dial\n" {
		t.Errorf("off loopback: %q", got.text)
	}
}

func TestReadyWithoutAFunction(t *testing.T) {
	if got := ask(t, "GET", start(t, Options{}, false)+"/readyz", nil); got.code != 200 {
		t.Errorf("got %d", got.code)
	}
}

func TestOnlyGetAndHeadOfKnownPaths(t *testing.T) {
	url := start(t, Options{}, false)
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
			if got := ask(t, method, url+path, nil); got.code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: got %d", method, path, got.code)
			}
		}
	}
	for _, path := range []string{"/", "/debug/pprof/", "/livez/x"} {
		if got := ask(t, "GET", url+path, nil); got.code != http.StatusNotFound {
			t.Errorf("%s: got %d", path, got.code)
		}
	}
}

func TestMetricsOnLoopbackRefuseForeignNames(t *testing.T) {
	url := start(t, Options{}, false)
	for host, want := range map[string]int{
		"": 200, "localhost": 200, "LOCALHOST:9380": 200, "127.0.0.1": 200, "[::1]:9380": 200, "[::1]": 200, "10.1.2.3:80": 200,
		"evil.example": 403, "evil.example:9380": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:9380": 403,
	} {
		got := ask(t, "GET", url+"/metrics", func(r *http.Request) { r.Host = host })
		if got.code != want || strings.Contains(got.text, "go_goroutines") != (want == 200) {
			t.Errorf("Host %q: got %d %.40q, want %d", host, got.code, got.text, want)
		}
	}
}

func TestMetricsOffLoopbackNeedTheToken(t *testing.T) {
	var mu sync.Mutex
	token, fault := "one", error(nil)
	set := func(s string, err error) { mu.Lock(); token, fault = s, err; mu.Unlock() }
	url := start(t, Options{Token: func() (string, error) { mu.Lock(); defer mu.Unlock(); return token, fault }}, true)
	get := func(authorization string) reply {
		return ask(t, "GET", url+"/metrics", func(r *http.Request) {
			r.Host = "dragontls.example"
			r.Header.Set("Authorization", authorization)
		})
	}
	for authorization, want := range map[string]int{"": 401, "Bearer": 401, "Bearer ": 401, "one": 401, "Basic one": 401, "Bearer on": 401, "Bearer one1": 401, "Bearer one": 200, "bearer  one": 200} {
		got := get(authorization)
		if got.code != want || strings.Contains(got.text, "go_goroutines") != (want == 200) {
			t.Errorf("%q: got %d, want %d", authorization, got.code, want)
		}
		if want == 401 && got.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%q: no WWW-Authenticate", authorization)
		}
	}
	set("two", nil)
	if get("Bearer one").code != 401 || get("Bearer two").code != 200 {
		t.Error("the token is not read again")
	}
	set("", nil)
	if got := get("Bearer "); got.code != 503 {
		t.Errorf("empty token: got %d", got.code)
	}
	set("", errors.New("open: permission denied"))
	if got := get("Bearer two"); got.code != 503 || strings.Contains(got.text, "denied") {
		t.Errorf("unreadable token: got %d %q", got.code, got.text)
	}
}

func TestMetricsOffLoopbackWithoutATokenSayWhatToSet(t *testing.T) {
	got := ask(t, "GET", start(t, Options{}, true)+"/metrics", nil)
	if got.code != 403 || !strings.Contains(got.text, "DRAGONTLS_ADMIN_TOKEN_FILE") {
		t.Errorf("got %d %q", got.code, got.text)
	}
}

func TestLoopbackIsJudgedByTheListener(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1": true, "127.8.8.8": true, "::1": true, "0.0.0.0": false, "::": false, "10.0.0.1": false} {
		if got := onLoopback(&net.TCPAddr{IP: net.ParseIP(address)}); got != want {
			t.Errorf("%s: got %v", address, got)
		}
	}
	s, err := Listen(Options{Listen: ":0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	if onLoopback(s.Addr()) {
		t.Errorf("%s counts as loopback", s.Addr())
	}
}

func TestMetrics(t *testing.T) {
	shared := []Label{{"b", "2"}, {"a", "1"}}
	var logged bytes.Buffer
	url := start(t, Options{Log: zerolog.New(zerolog.SyncWriter(&logged)), Collect: func(emit func(Metric)) {
		emit(Metric{Name: "things_total", Help: "Things.", Labels: shared, Value: 3})
		emit(Metric{Name: "dragontls_things_total", Help: "Things.", Labels: []Label{{"a", "1"}, {"b", "2"}}, Value: 99}) // twice
		emit(Metric{Name: "things_total", Help: "Things.", Labels: shared, Value: 3})                                     // the same again
		emit(Metric{Name: "things_total", Help: "Things.", Labels: []Label{{"a", "2"}, {"b", "2"}}, Value: 4})
		emit(Metric{Name: "up", Kind: Gauge, Value: 1})
		emit(Metric{Name: "up", Help: "another", Kind: Counter, Labels: []Label{{"x", "y"}}}) // another kind
		emit(Metric{Name: "bad name\xff", Value: 1})
		emit(Metric{Name: "bad_value", Labels: []Label{{"l", "\xff"}}})
		emit(Metric{Name: "wait_seconds", Kind: HistogramKind, Histogram: &Histogram{Count: 5, Sum: 1.5, Buckets: map[float64]uint64{0.1: 2, 1: 4}}})
		emit(Metric{Name: "empty_seconds", Kind: HistogramKind})
		panic("collect")
	}}, false)
	got := ask(t, "GET", url+"/metrics", nil)
	if got.code != 200 {
		t.Fatalf("got %d %s", got.code, got.text)
	}
	for _, line := range []string{
		"# HELP dragontls_things_total Things.", "# TYPE dragontls_things_total counter",
		`dragontls_things_total{a="1",b="2"} 3`, `dragontls_things_total{a="2",b="2"} 4`,
		"# TYPE dragontls_up gauge", "dragontls_up 1",
		`dragontls_wait_seconds_bucket{le="0.1"} 2`, `dragontls_wait_seconds_bucket{le="1"} 4`,
		`dragontls_wait_seconds_bucket{le="+Inf"} 5`, "dragontls_wait_seconds_sum 1.5", "dragontls_wait_seconds_count 5",
		"dragontls_empty_seconds_count 0",
	} {
		if !strings.Contains(got.text, line+"\n") {
			t.Errorf("lacks %q", line)
		}
	}
	for _, part := range []string{"go_goroutines ", "process_open_fds "} {
		if !strings.Contains(got.text, "\n"+part) {
			t.Errorf("lacks %q", part)
		}
	}
	if strings.Contains(got.text, " 99\n") || strings.Contains(got.text, "bad_value") {
		t.Error("a refused sample is served")
	}
	if shared[0].Name != "b" {
		t.Error("the caller's labels were sorted")
	}
	if strings.Count(logged.String(), "another value has the same labels") != 1 {
		t.Errorf("want one line of the two values with the same labels: %s", logged.String())
	}
	if !strings.Contains(logged.String(), `"panic":"collect"`) {
		t.Errorf("the panic is not logged: %s", logged.String())
	}
}

// Scrapes beyond maxScrapes wait for the others, and are answered.
func TestScrapesWaitForOneAnother(t *testing.T) {
	gathering, goOn := make(chan struct{}, 100), make(chan struct{})
	var now atomic.Int64
	url := start(t, Options{Collect: func(emit func(Metric)) {
		if n := now.Add(1); n > maxScrapes {
			t.Errorf("%d scrapes at a time, want at most %d", n, maxScrapes)
		}
		defer now.Add(-1)
		gathering <- struct{}{}
		<-goOn
		emit(Metric{Name: "up", Kind: Gauge, Value: 1})
	}}, false)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			resp, err := http.Get(url + "/metrics")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("got %d", resp.StatusCode)
			}
		})
	}
	for range maxScrapes {
		<-gathering
	}
	close(goOn)
	all.Wait()
}

// A client that waited for other scrapes and has gone takes no turn.
func TestScrapesOfVanishedClientsAreNotMade(t *testing.T) {
	taken, goOn := make(chan struct{}), make(chan struct{})
	served := 0
	h := inTurn(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		served++
		close(taken)
		<-goOn
	}), 1)
	first := make(chan struct{})
	go func() {
		defer close(first)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}()
	<-taken
	gone, leave := context.WithCancel(context.Background())
	leave()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil).WithContext(gone))
	close(goOn)
	<-first
	if served != 1 {
		t.Errorf("%d scrapes were made, want 1", served)
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	r, err := http.NewRequest("GET", start(t, Options{}, false)+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X", strings.Repeat("x", 4*maxHeaderBytes))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return // closed with our bytes unread, which may reset the answer away
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", resp.StatusCode)
	}
}

func TestConnectionsAreClosedAfterTheAnswer(t *testing.T) {
	url := start(t, Options{}, false)
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}

func TestCloseBeforeServe(t *testing.T) {
	s, err := Listen(Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.listener.(*placesListener).Listener.(*net.TCPListener).SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("still listening: %v", err)
	}
	if err := s.Serve(); err != nil {
		t.Error(err)
	}
}

func TestCloseCutsRequestsWhenItsTimeIsUp(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, err := Listen(Options{Listen: "127.0.0.1:0", Ready: func() Readiness { close(entered); <-release; return Readiness{OK: true} }})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { s.Serve() })
	running.Go(func() {
		if resp, err := http.Get("http://" + s.Addr().String() + "/readyz"); err == nil {
			resp.Body.Close()
			t.Error("the request was answered")
		}
	})
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	close(release)
	running.Wait()
}

func TestListenFault(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Listen(Options{Listen: other.Addr().String()}); err == nil {
		t.Error("it listens on an address that another program has")
	}
}
