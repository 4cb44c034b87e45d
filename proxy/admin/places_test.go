package admin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/admin/statuspage"
)

func TestWhoLosesAPlace(t *testing.T) {
	local, remote := strings.Repeat("l", maxConnections), strings.Repeat("r", maxRemote)
	rest := local[maxRemote:]
	// Letters are connections, oldest first: of this host or of another one, in upper case once asked.
	for _, tt := range []struct {
		name, open string
		local      bool
		loser      int // -1: nobody
	}{
		{"nobody while places are free", local[1:], true, -1},
		{"the oldest", local, true, 0},
		{"the oldest that has not asked", "LL" + local[2:], true, 2},
		{"the oldest, where all have asked", strings.ToUpper(local), true, 0},
		{"the oldest, where few have not asked", strings.ToUpper(local[8:]) + local[:8], true, 0},
		{"other hosts keep places free for this one", remote, false, 0},
		{"which this one gets", remote + rest[1:], true, -1},
		{"another host's before one of this host", rest + remote, true, len(rest)},
		{"even if that one has asked", rest + strings.ToUpper(remote), true, len(rest)},
		{"another host's that has not asked first", rest + "RR" + remote[2:], true, len(rest) + 2},
		{"another host's for another host", rest + strings.ToUpper(remote), false, len(rest)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &placesListener{}
			for _, c := range tt.open {
				l.open = append(l.open, &placedConn{listener: l, local: strings.ContainsRune("lL", c), asked: strings.ContainsRune("LR", c)})
			}
			all := append([]*placedConn(nil), l.open...)
			newcomer := &placedConn{listener: l, local: tt.local}
			loser, got := l.add(newcomer), -1
			for i, c := range all {
				if c == loser {
					got = i
				}
			}
			if got != tt.loser || (loser == nil) != (tt.loser < 0) {
				t.Errorf("%d loses its place, want %d", got, tt.loser)
			}
			if l.open[len(l.open)-1] != newcomer || len(l.open) > maxConnections {
				t.Errorf("%d are open", len(l.open))
			}
		})
	}
}

func TestAnotherHostTakesNoPlaceOfThisHosts(t *testing.T) {
	l := &placesListener{}
	for range maxConnections {
		l.open = append(l.open, &placedConn{listener: l, local: true})
	}
	newcomer := &placedConn{listener: l}
	if loser := l.add(newcomer); loser != newcomer || len(l.open) != maxConnections {
		t.Errorf("%p loses a place, want the newcomer %p; %d are open", loser, newcomer, len(l.open))
	}
}

func TestThisHost(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1": true, "127.8.8.8": true, "::1": true, "::ffff:127.0.0.1": true, "10.0.0.1": false, "fe80::1": false} {
		if got := onThisHost(&net.TCPAddr{IP: net.ParseIP(address)}); got != want {
			t.Errorf("%s: got %v", address, got)
		}
	}
	if !onThisHost(&net.UnixAddr{}) {
		t.Error("the peer of a Unix socket is elsewhere")
	}
}

func TestReachableWhateverOthersHold(t *testing.T) {
	const others = 300
	for _, tt := range []struct{ name, send string }{
		{"nothing", ""},
		{"half a request", "GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "},
		{"half a body", "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"},
		{"a request that takes long", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logged bytes.Buffer
			slow, release := true, make(chan struct{})
			var mu sync.Mutex
			url := start(t, Options{
				Log: zerolog.New(zerolog.SyncWriter(&logged)),
				Ready: func() Readiness {
					mu.Lock()
					wait := slow
					mu.Unlock()
					if wait {
						<-release
					}
					return Readiness{OK: true}
				},
				Status: func(statuspage.Query) *statuspage.Status { return &statuspage.Status{} },
			}, false)
			var unlock sync.Once
			defer unlock.Do(func() { close(release) })
			var ended atomic.Int64
			var waiting sync.WaitGroup
			defer waiting.Wait()
			for range others {
				c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, tt.send)
				waiting.Go(func() { // ends with c
					io.Copy(io.Discard, c)
					ended.Add(1)
				})
			}
			end := time.Now().Add(time.Minute) // only there to end a test that fails
			for ended.Load() < others-maxConnections {
				if time.Now().After(end) {
					t.Fatalf("%d of %d lost their places", ended.Load(), others)
				}
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			slow = false
			mu.Unlock()
			client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
			for _, path := range []string{"/livez", "/readyz", "/metrics", "/status.json"} {
				r, err := client.Get(url + path)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
					t.Errorf("%s: %d, %v", path, r.StatusCode, err)
				}
				r.Body.Close()
			}
			if n := strings.Count(logged.String(), "all places of the admin listener were taken"); tt.send == "" && n == 0 {
				t.Errorf("nothing is logged:\n%s", &logged)
			}
		})
	}
}

func TestFullPlacesAreToldSeldom(t *testing.T) {
	var logged bytes.Buffer
	l := &placesListener{log: zerolog.New(&logged)}
	for range 100 {
		l.tell()
	}
	if n := strings.Count(logged.String(), "\n"); n != 1 || l.closed != 99 {
		t.Errorf("%d lines, and %d closed since", n, l.closed)
	}
	l.next = time.Time{}
	l.tell()
	if !strings.Contains(logged.String(), `"closed":100,`) || l.closed != 0 {
		t.Errorf("logged %s", &logged)
	}
}

func TestPlacesAreFreeAfterwards(t *testing.T) {
	l, err := Listen(Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve() })
	for range 2 * maxConnections {
		ask(t, "GET", fmt.Sprintf("http://%s/livez", l.Addr()), nil)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Error(err)
	}
	serving.Wait()
	p := l.listener.(*placesListener)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) != 0 {
		t.Errorf("%d places are taken", len(p.open))
	}
}
