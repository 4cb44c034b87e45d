package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"

	"dragontls/proxy/admin/statuspage"
)

const textStatusTimeout = "the status could not be gathered in time: too many requests at once, or no processor time; try again\n"

// maxRows is how many sessions one page shows at most: with more, a browser becomes slow, and it takes a tenth of a second to write them.
const maxRows = 1000

// statusKind is a form in which the status is served.
type statusKind struct {
	contentType string
	limit       int // sessions at most; 0: as many as the query may ask for
	write       func(io.Writer, *statuspage.Status) error
}

var (
	statusJSON = statusKind{"application/json", 0, func(w io.Writer, s *statuspage.Status) error { return json.NewEncoder(w).Encode(s) }}
	statusPage = statusKind{"text/html; charset=utf-8", maxRows, statuspage.WritePage}
)

// newStatusHandler answers with what status returns.
func newStatusHandler(status func(statuspage.Query) *statuspage.Status, kind statusKind) http.Handler {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := statuspage.ParseQuery(r.URL.Query())
		if err != nil {
			answer(w, http.StatusBadRequest, err.Error()+"\n")
			return
		}
		if kind.limit > 0 {
			q.Limit = min(q.Limit, kind.limit)
		}
		var text bytes.Buffer
		if err := kind.write(&text, status(q)); err != nil {
			answer(w, http.StatusInternalServerError, "status cannot be shown\n")
			return
		}
		w.Header().Set("Content-Type", kind.contentType)
		_, _ = w.Write(text.Bytes())
	})
	// As with scrapes: the client gets nothing before its status is complete, and so cannot keep others waiting.
	return http.TimeoutHandler(inTurn(h, maxScrapes), scrapeTimeout, textStatusTimeout)
}

// forBrowsers adds to a page what keeps a browser from showing it to, or loading it with, anything else.
func forBrowsers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", statuspage.Policy())
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// offerPassword lets a browser, which cannot be told to send a token, ask for a user, which is ignored, and a password, which is the token.
// A browser sends these again by itself, so that other sites can make it ask for pages: only those that change nothing may be behind it.
func offerPassword(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); ok {
			r.Header.Set("Authorization", "Bearer "+password)
		}
		next.ServeHTTP(passwordOffer{w}, r)
	})
}

// passwordOffer adds to an answer that asks for a token that a password will do.
type passwordOffer struct{ http.ResponseWriter }

func (o passwordOffer) WriteHeader(code int) {
	if code == http.StatusUnauthorized {
		o.Header().Add("WWW-Authenticate", `Basic realm="dragontls: any user, and the token as password", charset="UTF-8"`)
	}
	o.ResponseWriter.WriteHeader(code)
}
