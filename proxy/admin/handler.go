package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/rs/zerolog"
)

const (
	textNoToken = "metrics and status are served off loopback only with a token\n" +
		"set DRAGONTLS_ADMIN_TOKEN_FILE to a file that holds one and send it as \"Authorization: Bearer TOKEN\",\n" +
		"or set DRAGONTLS_ADMIN_LISTEN to a loopback address\n"
	textWrongToken = "send the token of DRAGONTLS_ADMIN_TOKEN_FILE as \"Authorization: Bearer TOKEN\"\n"
	textBadToken   = "DRAGONTLS_ADMIN_TOKEN_FILE cannot be read; the log says why\n"
	textWrongHost  = "ask for this page by IP address or as localhost\n"

	textScrapeTimeout = "the metrics could not be gathered in time: too many scrapes at once, or no processor time; try again\n"
)

type handler struct {
	token    func() (string, error)
	ready    func() Readiness
	loopback bool   // or a Unix socket, see isPrivate
	name     string // of the host that Options.Listen names, if it is no address
	log      zerolog.Logger
}

func newHandler(o Options, loopback bool) http.Handler {
	h := &handler{token: o.Token, ready: o.Ready, loopback: loopback, name: nameOf(o.Listen), log: o.Log}
	mux := http.NewServeMux() // GET is HEAD too; the rest is 405
	mux.HandleFunc("GET /livez", h.livez)
	mux.HandleFunc("GET /readyz", h.readyz)
	mux.Handle("GET /metrics", h.guard(newMetricsHandler(o)))
	if o.Status != nil {
		mux.Handle("GET /status.json", h.guard(newStatusHandler(o.Status, statusJSON)))
		mux.Handle("GET /{$}", forBrowsers(offerPassword(h.guard(newStatusHandler(o.Status, statusPage)))))
	}
	if o.Control != nil {
		h.control(mux, o.Control)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noteAsked(r)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

func (h *handler) livez(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, "alive\n")
}

func (h *handler) readyz(w http.ResponseWriter, req *http.Request) {
	r := Readiness{OK: true}
	if h.ready != nil {
		r = h.ready()
	}
	code, text := http.StatusOK, "ready\n"
	if !r.OK {
		code, text = http.StatusServiceUnavailable, "not ready\n"
	}
	if !h.loopback || !localHost(req.Host) && !overUnix(req) {
		r.Detail = ""
	}
	for _, line := range []string{r.Reason, r.Detail} {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			text += line + "\n"
		}
	}
	answer(w, code, text)
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprint(w, text)
}

// guard lets requests through that may see more than health.
func (h *handler) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.loopback {
			// A page in a local browser can reach us through a name of its own that
			// it points at 127.0.0.1 (DNS rebinding); the Host header gives it away.
			if !localHost(r.Host) && !h.isNamed(r.Host) && !overUnix(r) {
				answer(w, http.StatusForbidden, textWrongHost)
				return
			}
		} else if !h.authorized(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authorized checks the token, or answers why not.
func (h *handler) authorized(w http.ResponseWriter, r *http.Request) bool {
	if h.token == nil {
		answer(w, http.StatusForbidden, textNoToken)
		return false
	}
	want, err := h.token()
	if err != nil || want == "" {
		h.log.Error().Err(err).Msg("admin token unreadable or empty")
		answer(w, http.StatusServiceUnavailable, textBadToken)
		return false
	}
	scheme, got, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || !equal(strings.TrimSpace(got), want) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		answer(w, http.StatusUnauthorized, textWrongToken)
		return false
	}
	return true
}

// equal takes the same time whatever differs, even the length.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// nameOf returns the host of a host:port, unless it is an IP address.
func nameOf(hostport string) string {
	host := hostOf(hostport)
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	return host
}

// isNamed reports whether a request asks for the host by the name that the operator gave it: who answers for that name is the operator's
// choice.
func (h *handler) isNamed(hostport string) bool {
	return h.name != "" && strings.EqualFold(hostOf(hostport), h.name)
}

// overUnix reports whether a request came over a Unix socket, to which no browser connects.
func overUnix(r *http.Request) bool {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && a.Network() == "unix"
}

func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return host
}

func localHost(hostport string) bool {
	host := hostOf(hostport)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}
