package admin

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
)

// Control is what an operator can have a running process do. Its functions may be called concurrently; by says who asks.
type Control struct {
	// Kill closes the sessions that match and returns how many. One of identity and address is empty. The error says what is wrong with the
	// other one.
	Kill func(by, identity, address string) (int, error)
	// Reload reads all files again. The error is their faults.
	Reload func(by string) (changed bool, err error)
	// Drain begins the end of the process, as SIGTERM does. Another call changes nothing.
	Drain func(by string)
	// SetLevel changes the log level until the next restart or change of the setting. The error says which levels there are.
	SetLevel func(by, level string) error
}

const (
	// OperatorHeader must be in a request that changes something, with any value. A web page cannot make a browser send it to another site,
	// unless that site permits it, which is not done here.
	OperatorHeader = "X-Dragontls"

	unknownPeer = "unix socket"

	textNoHeader  = "send the header " + OperatorHeader + ": 1"
	textOfBrowser = "a request of a web page changes nothing here"
	textOneTarget = "name one of identity and address, once"
)

// outcome is the answer to a request that changes something.
type outcome struct {
	code  int
	value any
}

// KillAnswer, ReloadAnswer, DrainAnswer and LevelAnswer are what the requests are answered with, and ErrorAnswer if they are refused.
type (
	KillAnswer struct {
		Killed int `json:"killed"`
	}
	ReloadAnswer struct {
		OK      bool   `json:"ok"`
		Changed bool   `json:"changed"`
		Error   string `json:"error,omitempty"`
	}
	DrainAnswer struct {
		Draining bool `json:"draining"`
	}
	LevelAnswer struct {
		Level string `json:"level"`
	}
	ErrorAnswer struct {
		Error string `json:"error"`
	}
)

func refusal(code int, text string) outcome { return outcome{code, ErrorAnswer{text}} }

// control adds the requests that change something to mux.
func (h *handler) control(mux *http.ServeMux, c *Control) {
	add := func(path string, do func(by string, r *http.Request) outcome) {
		mux.Handle("POST "+path, h.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			out := refusedToBrowser(r)
			if out.value == nil {
				out = do(askedBy(r), r)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(out.code)
			_ = json.NewEncoder(w).Encode(out.value)
		})))
	}
	add("/kill", func(by string, r *http.Request) outcome {
		identity, address, err := target(r)
		if err != nil {
			return refusal(http.StatusBadRequest, err.Error())
		}
		n, err := c.Kill(by, identity, address)
		if err != nil {
			return refusal(http.StatusBadRequest, err.Error())
		}
		return outcome{http.StatusOK, KillAnswer{n}}
	})
	add("/reload", func(by string, _ *http.Request) outcome {
		changed, err := c.Reload(by)
		if err != nil {
			return outcome{http.StatusInternalServerError, ReloadAnswer{false, changed, err.Error()}}
		}
		return outcome{http.StatusOK, ReloadAnswer{OK: true, Changed: changed}}
	})
	add("/drain", func(by string, _ *http.Request) outcome {
		c.Drain(by)
		return outcome{http.StatusAccepted, DrainAnswer{true}}
	})
	add("/log-level", func(by string, r *http.Request) outcome {
		level := r.URL.Query().Get("level")
		if err := c.SetLevel(by, level); err != nil {
			return refusal(http.StatusBadRequest, err.Error())
		}
		return outcome{http.StatusOK, LevelAnswer{level}}
	})
}

// target reads whom to kill. A parameter of another name is refused: a typing slip in it would otherwise widen the target.
func target(r *http.Request) (identity, address string, err error) {
	q := r.URL.Query()
	identity, address = q.Get("identity"), q.Get("address")
	if len(q) != 1 || len(q["identity"])+len(q["address"]) != 1 || identity+address == "" {
		return "", "", errors.New(textOneTarget)
	}
	return identity, address, nil
}

// refusedToBrowser refuses what a browser has sent on behalf of a web page; the value is nil for the rest. Browsers set Origin in every POST,
// and most of them Sec-Fetch-Site.
func refusedToBrowser(r *http.Request) outcome {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return refusal(http.StatusForbidden, textOfBrowser)
	}
	if r.Header.Get(OperatorHeader) == "" {
		return refusal(http.StatusForbidden, textNoHeader)
	}
	return outcome{}
}

// askedBy names the client of a request for the log.
func askedBy(r *http.Request) string {
	if c, ok := r.Context().Value(placeKey{}).(*placedConn); ok {
		if local, ok := c.Conn.(*net.UnixConn); ok {
			return peerOf(local)
		}
	}
	return r.RemoteAddr
}
