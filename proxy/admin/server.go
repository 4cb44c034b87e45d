// Package admin is the plain HTTP side of dragontls: health for orchestrators, metrics
// for Prometheus, status for people and scripts, and what an operator may change. Health is
// open to all; the rest needs a token, except over loopback and a Unix socket.
package admin

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/admin/statuspage"
)

const (
	// requestTimeout is for the whole request: what is served here is asked for in one packet.
	requestTimeout = 2 * time.Second
	// answerTimeout counts from the end of the request's header, and includes making the answer.
	answerTimeout = 10 * time.Second
	// maxHeaderBytes: a probe's or a scrape's header is a few hundred bytes.
	maxHeaderBytes = 8 << 10
)

// Options says what to serve. All functions may be called concurrently.
type Options struct {
	Listen  string                  // host:port, or unix:// and an absolute path
	Inherit net.Listener            // in place of Listen, a listener that another process has opened
	Token   func() (string, error)  // asked at every use; nil: there is none
	Ready   func() Readiness        // nil: always ready
	Collect func(emit func(Metric)) // called at each scrape; nil: nothing of ours
	// Status is called for /status.json and the page at /; nil: there are none.
	Status func(statuspage.Query) *statuspage.Status
	// Control is asked by POST requests; nil: there are none.
	Control *Control
	// TakeOver takes the path of a Unix socket from a process that listens there.
	TakeOver bool
	Log      zerolog.Logger
}

// Readiness is what /readyz says.
type Readiness struct {
	OK     bool
	Reason string // a word, shown to everybody
	Detail string // shown on loopback only
}

// Server is the admin listener. Its methods may be called concurrently.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen opens the listener; Serve answers on it.
func Listen(o Options) (*Server, error) {
	l, err := listen(o)
	if err != nil {
		return nil, err
	}
	h := &http.Server{
		Handler:        newHandler(o, isPrivate(l)),
		ReadTimeout:    requestTimeout,
		WriteTimeout:   answerTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ConnContext:    withPlace,
		ErrorLog:       log.New(errorLog{o.Log}, "", 0),
	}
	// Nobody holds a place for a request that may come.
	h.SetKeepAlivesEnabled(false)
	return &Server{listener: &placesListener{Listener: l, log: o.Log}, http: h}, nil
}

func listen(o Options) (net.Listener, error) {
	if o.Inherit != nil {
		return o.Inherit, nil
	}
	if path, ok := unixPath(o.Listen); ok {
		return listenUnix(path, o.TakeOver)
	}
	return net.Listen("tcp", o.Listen)
}

func onLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until Close, then returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close stops listening and lets requests finish until ctx ends, then cuts them.
// It may be called before Serve, which then returns at once.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	s.listener.Close() // Shutdown knows of it only once Serve runs
	return err
}

// errorLog takes what net/http has to say.
type errorLog struct{ log zerolog.Logger }

func (e errorLog) Write(p []byte) (int, error) {
	e.log.Warn().Str("error", strings.TrimSpace(string(p))).Msg("admin listener")
	return len(p), nil
}
