package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// secretPath is the part of a webhook's URL that lets anybody post there.
const secretPath = "/services/T000/B000/hunter2secret"

// webhook is a receiver that answers by script; the last answer stays.
type webhook struct {
	*httptest.Server
	got chan posted
}

type posted struct {
	path, contentType, text string
}

func newWebhook(t *testing.T, answers ...http.HandlerFunc) *webhook {
	t.Helper()
	h := &webhook{got: make(chan posted, 1000)}
	var mu sync.Mutex
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var message map[string]string
		if err := json.Unmarshal(body, &message); err != nil || len(message) != 1 || r.Method != http.MethodPost {
			t.Errorf("%s %q: %v", r.Method, body, err)
		}
		mu.Lock()
		answer := func(http.ResponseWriter, *http.Request) {}
		if len(answers) > 0 {
			answer = answers[0]
		}
		if len(answers) > 1 {
			answers = answers[1:]
		}
		mu.Unlock()
		h.got <- posted{r.URL.Path, r.Header.Get("Content-Type"), message["text"]}
		answer(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// alerting is Alerts whose waits take no time and are remembered.
type alerting struct {
	*Alerts
	t    *testing.T
	log  lockedBuffer
	stop func() // ends Run and waits for it

	mu    sync.Mutex
	waits []time.Duration
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newAlerting(t *testing.T, url string, change func(*AlertOptions)) *alerting {
	t.Helper()
	a := &alerting{t: t}
	o := AlertOptions{URL: func() (string, error) { return url, nil }, Log: zerolog.New(&a.log),
		timeout: time.Minute, last: time.Minute,
		pause: func(ctx context.Context, d time.Duration) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.waits = append(a.waits, d)
			return ctx.Err()
		}}
	if change != nil {
		change(&o)
	}
	a.Alerts = NewAlerts(o)
	return a
}

func (a *alerting) run() *alerting {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	a.stop = func() { cancel(); <-done }
	a.t.Cleanup(a.stop)
	return a
}

func (a *alerting) until(what string, holds func(AlertStats) bool) {
	a.t.Helper()
	for end := time.Now().Add(time.Minute); !holds(a.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatalf("never: %s; %+v\n%s", what, a.Stats(), a.log.String())
		}
	}
}

func (a *alerting) wantStats(want AlertStats) {
	a.t.Helper()
	if got := a.Stats(); got != want {
		a.t.Errorf("got %+v, want %+v", got, want)
	}
}

func (a *alerting) wantWaits(low, high []time.Duration) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	ok := len(a.waits) == len(low)
	for i := range a.waits {
		ok = ok && a.waits[i] >= low[i] && a.waits[i] <= high[i]
	}
	if !ok {
		a.t.Errorf("waited %v, want between %v and %v", a.waits, low, high)
	}
}

// wantNoSecret: not even a part of the URL, be it the host.
func (a *alerting) wantNoSecret() {
	a.t.Helper()
	if text := a.log.String(); strings.Contains(text, "hunter2") || strings.Contains(text, "services") || strings.Contains(text, "127.0.0.1") {
		a.t.Errorf("the webhook's URL in the log: %s", text)
	}
}

func sent(s AlertStats) bool   { return s.Sent > 0 }
func failed(s AlertStats) bool { return s.Failed > 0 }

func TestAlertIsPostedAsSlackUnderstandsIt(t *testing.T) {
	h := newWebhook(t)
	a := newAlerting(t, h.URL+secretPath, nil).run()
	a.Send("first: <!channel> & \"a\"\nsecond line")
	a.until("sent", sent)
	want := posted{secretPath, "application/json", "first: &lt;!channel&gt; &amp; \"a\"\nsecond line"}
	if got := <-h.got; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	a.Send(strings.Repeat("é", maxAlertText))
	a.until("sent", func(s AlertStats) bool { return s.Sent == 2 })
	if got := <-h.got; got.text != strings.Repeat("é", maxAlertText/2) {
		t.Errorf("got %d bytes, want %d of whole characters", len(got.text), maxAlertText)
	}
	a.wantStats(AlertStats{Sent: 2})
	a.wantNoSecret()
}

func TestAlertIsTriedAgain(t *testing.T) {
	const s = time.Second
	soon := func(w http.ResponseWriter, r *http.Request) {
		status(429, "Retry-After", time.Now().Add(3*time.Minute).UTC().Format(http.TimeFormat))(w, r)
	}
	tests := map[string]struct {
		first     http.HandlerFunc
		low, high time.Duration
	}{
		"500":                             {status(500), s / 2, s},
		"429":                             {status(429), s / 2, s},
		"429, come in 7 s":                {status(429, "Retry-After", "7"), 7 * s, 7 * s},
		"429, come at a date":             {soon, 2 * time.Minute, 3 * time.Minute},
		"429, come in a day":              {status(429, "Retry-After", "86400"), maxRetryDelay, maxRetryDelay},
		"429, come before":                {status(429, "Retry-After", "-5"), s / 2, s},
		"503, come in 9 s":                {status(503, "Retry-After", "9"), 9 * s, 9 * s},
		"503, come after the end of time": {status(503, "Retry-After", "99999999999999999999"), s / 2, s},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			c.Close()
		}, s / 2, s},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newWebhook(t, test.first, status(200))
			a := newAlerting(t, h.URL+secretPath, nil).run()
			a.Send("text")
			a.until("sent", sent)
			a.wantWaits([]time.Duration{test.low}, []time.Duration{test.high})
			a.wantStats(AlertStats{Sent: 1})
			if n := len(h.got); n != 2 {
				t.Errorf("posted %d times, want 2", n)
			}
			if !strings.Contains(a.log.String(), "trying again") {
				t.Errorf("log: %s", a.log.String())
			}
			a.wantNoSecret()
		})
	}
}

func TestAlertBacksOffAndIsGivenUp(t *testing.T) {
	h := newWebhook(t, status(502))
	a := newAlerting(t, h.URL+secretPath, nil).run()
	a.Send("text")
	a.until("given up", failed)
	var low, high []time.Duration
	for d := time.Second; len(low) < maxAlertTries-1; d = min(2*d, maxRetryDelay) {
		low, high = append(low, d/2), append(high, d)
	}
	a.wantWaits(low, high)
	if n := len(h.got); n != maxAlertTries {
		t.Errorf("posted %d times, want %d", n, maxAlertTries)
	}
	a.wantStats(AlertStats{Failed: 1})
	a.wantNoSecret()
}

func TestAlertIsGivenUpAfterHalfAnHour(t *testing.T) {
	h := newWebhook(t, status(429, "Retry-After", "600"))
	a := newAlerting(t, h.URL+secretPath, nil).run()
	a.Send("text")
	a.until("given up", failed)
	a.wantWaits(slices.Repeat([]time.Duration{maxRetryDelay}, 6), slices.Repeat([]time.Duration{maxRetryDelay}, 6))
}

func TestAlertIsGivenUpAtOnceWhereAnotherTryIsUseless(t *testing.T) {
	elsewhere := newWebhook(t)
	tests := map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"404":               {status(404), "404 Not Found"},
		"403":               {status(403), "check the URL"},
		"redirect":          {status(302, "Location", elsewhere.URL), "redirects are not followed"},
		"permanent, as is":  {status(308, "Location", elsewhere.URL), "redirects are not followed"},
		"unknown to anyone": {status(499), "answered 499"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newWebhook(t, test.answer)
			a := newAlerting(t, h.URL+secretPath, nil).run()
			a.Send("text")
			a.until("given up", failed)
			a.wantWaits(nil, nil)
			if len(h.got) != 1 || len(elsewhere.got) != 0 {
				t.Errorf("posted %d times, and %d elsewhere", len(h.got), len(elsewhere.got))
			}
			if !strings.Contains(a.log.String(), test.says) {
				t.Errorf("log does not say %q: %s", test.says, a.log.String())
			}
			a.wantNoSecret()
		})
	}
}

func TestAlertSurvivesWhatTheNetworkDoes(t *testing.T) {
	gone := closedAddress(t)
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail, ten times
	untrusted.StartTLS()
	defer untrusted.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	speaksNoMore := httptest.NewUnstartedServer(http.NotFoundHandler())
	speaksNoMore.Config.ErrorLog = log.New(io.Discard, "", 0)
	speaksNoMore.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	speaksNoMore.StartTLS()
	defer speaksNoMore.Close()
	cut := newWebhook(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	})
	tests := map[string]struct{ url, says string }{
		"refused":         {"http://" + gone, "refused: "},
		"hangs":           {"http://" + silent.Addr().String(), "timeout: "},
		"untrusted":       {untrusted.URL, "tls: "},
		"refuses us":      {speaksNoMore.URL, "tls: "},
		"not TLS":         {strings.Replace(newWebhook(t).URL, "http:", "https:", 1), "tls: "},
		"cut off":         {cut.URL, "closed: "},
		"no such scheme":  {"hunter2://127.0.0.1", "other: "},
		"malformed":       {"http://127.0.0.1:services", "malformed"},
		"with a password": {"http://user:hunter2@" + gone, "refused: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAlerting(t, test.url+secretPath, func(o *AlertOptions) {
				if name == "hangs" {
					o.timeout = 50 * time.Millisecond
				}
			}).run()
			a.Send("text")
			a.until("given up", failed)
			if !strings.Contains(a.log.String(), test.says) || !strings.Contains(a.log.String(), `"tries":10`) {
				t.Errorf("log does not say %q after ten tries: %s", test.says, a.log.String())
			}
			a.wantNoSecret()
		})
	}
}

// closedAddress returns an address that refuses connections until the test ends: a socket is bound to it, so that no
// other process can listen there, and does not listen.
func closedAddress(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

func TestHostOfTheWebhookIsAsSecretAsItsPath(t *testing.T) {
	a := newAlerting(t, "https://hunter2.invalid", nil)
	// A resolver that is asked for real says this, sooner or later.
	a.http.Transport.(*http.Transport).DialContext = func(_ context.Context, _, addr string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(addr)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	}
	a.run()
	a.Send("text")
	a.until("given up", failed)
	if !strings.Contains(a.log.String(), "dns: ") {
		t.Errorf("log: %s", a.log.String())
	}
	a.wantNoSecret()
}

func TestAlertURLIsReadBeforeEachTry(t *testing.T) {
	h := newWebhook(t)
	tries := 0
	a := newAlerting(t, "", func(o *AlertOptions) {
		o.URL = func() (string, error) {
			if tries++; tries < 3 {
				return "", errors.New("the file is empty")
			}
			return h.URL + secretPath, nil
		}
	}).run()
	a.Send("text")
	a.until("sent", sent)
	a.wantStats(AlertStats{Sent: 1})
	if !strings.Contains(a.log.String(), "the file is empty") {
		t.Errorf("log: %s", a.log.String())
	}
}

func TestAlertQueueDropsTheOldest(t *testing.T) {
	h := newWebhook(t)
	a := newAlerting(t, h.URL+secretPath, nil)
	for i := range maxAlerts + 3 {
		a.Send(string(rune('A' + i)))
	}
	a.wantStats(AlertStats{Dropped: 3})
	a.run()
	a.until("sent", func(s AlertStats) bool { return s.Sent == maxAlerts })
	for i := range maxAlerts {
		if got, want := (<-h.got).text, slackEscapes.Replace(string(rune('A'+3+i))); got != want {
			t.Fatalf("alert %d is %q, want %q", i, got, want)
		}
	}
	if n := strings.Count(a.log.String(), "the oldest alert is dropped"); n != 3 {
		t.Errorf("logged %d times, want 3", n)
	}
}

func TestAlertsThatWaitGetOneTryWhenTheProcessStops(t *testing.T) {
	h := newWebhook(t, status(500), status(200), status(500), status(200))
	waiting := make(chan struct{})
	a := newAlerting(t, h.URL+secretPath, func(o *AlertOptions) {
		o.pause = func(ctx context.Context, _ time.Duration) error {
			close(waiting)
			<-ctx.Done()
			return ctx.Err()
		}
	})
	for _, text := range []string{"one", "two", "three"} {
		a.Send(text)
	}
	a.run()
	<-waiting
	a.stop()
	var texts []string
	for range len(h.got) {
		texts = append(texts, (<-h.got).text)
	}
	if want := []string{"one", "one", "two", "three"}; !slices.Equal(texts, want) {
		t.Errorf("got %q, want %q", texts, want)
	}
	a.wantStats(AlertStats{Sent: 2, Dropped: 1})
}

func TestAlertsStopWhileTheWebhookHangs(t *testing.T) {
	begun, release := make(chan struct{}, 10), make(chan struct{})
	h := newWebhook(t, func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	a := newAlerting(t, h.URL+secretPath, func(o *AlertOptions) { o.timeout, o.last = time.Hour, 50*time.Millisecond })
	a.Send("one")
	a.Send("two")
	a.run()
	<-begun
	a.stop()
	a.wantStats(AlertStats{Dropped: 2})
	a.wantNoSecret()
}

func TestPauseEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := pause(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := pause(context.Background(), time.Nanosecond); err != nil {
		t.Errorf("got %v", err)
	}
}
