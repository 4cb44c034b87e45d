package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// maxAlerts wait at a time; when one more comes, the oldest is dropped.
	maxAlerts = 64
	// maxAlertText bytes of one alert are sent; Slack cuts at 40,000 characters.
	maxAlertText = 8 << 10

	alertTimeout     = 5 * time.Second // for one try
	lastAlertTimeout = 2 * time.Second // for all that is left when the process stops
	maxAlertTries    = 10
	maxAlertWait     = 30 * time.Minute // all waits between the tries of one alert
	firstRetryDelay  = time.Second
	maxRetryDelay    = 5 * time.Minute // what a Retry-After may ask for, too
)

// AlertOptions configures Alerts.
type AlertOptions struct {
	// URL returns the webhook's URL. It is asked before every try, for it may
	// come from a file that changes. It is a secret; its error must not hold it.
	// An empty one drops the alert: there is no webhook any more.
	URL func() (string, error)
	Log zerolog.Logger

	timeout time.Duration                                    // of one try; 0: alertTimeout
	last    time.Duration                                    // for all at the end; 0: lastAlertTimeout
	pause   func(ctx context.Context, d time.Duration) error // nil: waits d, or until ctx ends
}

// AlertStats counts what became of alerts.
type AlertStats struct {
	Sent    uint64
	Failed  uint64 // given up
	Dropped uint64 // the queue was full, or the process stopped
}

// Alerts posts texts to a webhook as Slack understands it, one at a time and in
// order. Its methods may be called concurrently, Run once.
type Alerts struct {
	opts AlertOptions
	http *http.Client
	wake chan struct{}

	mu    sync.Mutex
	queue []string   // guarded by mu
	stats AlertStats // guarded by mu
}

// NewAlerts sends nothing before Run.
func NewAlerts(o AlertOptions) *Alerts {
	if o.timeout == 0 {
		o.timeout = alertTimeout
	}
	if o.last == 0 {
		o.last = lastAlertTimeout
	}
	if o.pause == nil {
		o.pause = pause
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // alerts are days apart
	return &Alerts{opts: o, wake: make(chan struct{}, 1), http: &http.Client{
		Transport: transport,
		// A redirect would hand the text to whom nobody named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Send queues an alert and never waits.
func (a *Alerts) Send(text string) {
	if len(text) > maxAlertText {
		text = strings.ToValidUTF8(text[:maxAlertText], "")
	}
	a.mu.Lock()
	full := len(a.queue) == maxAlerts
	if full {
		a.queue = a.queue[1:]
		a.stats.Dropped++
	}
	a.queue = append(a.queue, text)
	a.mu.Unlock()
	if full {
		a.opts.Log.Warn().Int("waiting", maxAlerts).Msg("alert queue is full: the oldest alert is dropped")
	}
	select {
	case a.wake <- struct{}{}:
	default: // Run looks anyway
	}
}

// Stats returns a copy.
func (a *Alerts) Stats() AlertStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

// Run sends until ctx ends. Then what still waits gets one more try each, all
// within 2 s, and what is left of it is dropped.
func (a *Alerts) Run(ctx context.Context) {
	defer a.http.CloseIdleConnections()
	for ctx.Err() == nil {
		text, ok := a.next()
		if !ok {
			select {
			case <-ctx.Done():
			case <-a.wake:
			}
			continue
		}
		if !a.deliver(ctx, text) {
			a.last(ctx, text)
			return
		}
	}
	a.last(ctx)
}

func (a *Alerts) next() (text string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return "", false
	}
	text, a.queue = a.queue[0], a.queue[1:]
	return text, true
}

// deliver tries until the text is sent or given up. False: ctx ended before.
func (a *Alerts) deliver(ctx context.Context, text string) bool {
	delay, waited := firstRetryDelay, time.Duration(0)
	for try := 1; ; try++ {
		err := a.post(ctx, text)
		if err == nil {
			a.count(func(s *AlertStats) { s.Sent++ })
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if errors.Is(err, errNoWebhook) {
			a.count(func(s *AlertStats) { s.Dropped++ })
			return true
		}
		wait := delay/2 + rand.N(delay/2) // many replicas see the same certificate end
		delay = min(2*delay, maxRetryDelay)
		var refused *alertRefused
		if errors.As(err, &refused) {
			wait = max(wait, min(refused.retryAfter, maxRetryDelay))
		}
		waited += wait
		if refused != nil && refused.final || try == maxAlertTries || waited > maxAlertWait {
			a.opts.Log.Error().Err(err).Int("tries", try).Msg("alert given up")
			a.count(func(s *AlertStats) { s.Failed++ })
			return true
		}
		if try == 1 {
			a.opts.Log.Warn().Err(err).Msg("alert not delivered yet, trying again")
		}
		if a.opts.pause(ctx, wait) != nil {
			return false
		}
	}
}

// last is for when the process stops: one try each.
func (a *Alerts) last(ctx context.Context, texts ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.opts.last)
	defer cancel()
	for text, ok := a.next(); ok; text, ok = a.next() {
		texts = append(texts, text)
	}
	for i, text := range texts {
		err := a.post(ctx, text)
		if err == nil {
			a.count(func(s *AlertStats) { s.Sent++ })
			continue
		}
		left := len(texts) - i
		if ctx.Err() == nil {
			left = 1
		}
		a.count(func(s *AlertStats) { s.Dropped += uint64(left) })
		a.opts.Log.Warn().Err(err).Int("alerts", left).Msg("alerts dropped at the end")
		if ctx.Err() != nil {
			return
		}
	}
}

func (a *Alerts) count(f func(*AlertStats)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.stats)
}

var errNoWebhook = errors.New("there is no webhook any more")

// alertRefused is an answer that is not a success.
type alertRefused struct {
	status     string
	final      bool // another try would get the same
	retryAfter time.Duration
	cure       string
}

func (e *alertRefused) Error() string {
	text := "post alert: the webhook answered " + e.status
	if e.cure != "" {
		text += "\n" + e.cure
	}
	return text
}

// slackEscapes are all that Slack asks for: else a file name could call a whole channel.
var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// post is one try. Its error never holds the URL.
func (a *Alerts) post(ctx context.Context, text string) error {
	url, err := a.opts.URL()
	if err != nil {
		return fmt.Errorf("read the webhook's URL: %w", err)
	}
	if url == "" {
		return errNoWebhook
	}
	body, err := json.Marshal(struct {
		Text string `json:"text"`
	}{slackEscapes.Replace(text)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.opts.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return errors.New("post alert: the webhook's URL is malformed") // err shows it
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "dragontls")
	response, err := a.http.Do(request)
	if err != nil {
		return errors.New("post alert: " + causeOf(err))
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4<<10))
	return judgeAlert(response, time.Now())
}

func judgeAlert(r *http.Response, now time.Time) error {
	code := r.StatusCode
	if code >= 200 && code < 300 {
		return nil
	}
	// Not r.Status: the text after the code is the peer's.
	e := &alertRefused{status: strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))}
	switch {
	case code == http.StatusTooManyRequests || code >= 500:
		e.retryAfter = retryAfter(r.Header.Get("Retry-After"), now)
	case code >= 300 && code < 400:
		e.final, e.cure = true, "redirects are not followed: set the final URL"
	default:
		e.final, e.cure = true, "check the URL of the webhook"
	}
	return e
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3); 0 where there is neither.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
