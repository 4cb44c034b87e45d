//go:build unix

package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// marker stands for every secret: it is a key, a value, a password, a command and garbage, and may show up nowhere.
const marker = "hunter2marker"

// say sends bytes, says that this was all, and reads what comes until the proxy has closed the connection.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, text) // may fail: the proxy closes the connection at some of it
	c.(interface{ CloseWrite() error }).CloseWrite()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%.40q: the connection stays", text)
	}
}

func wantNoMarker(t *testing.T, p *instance) {
	t.Helper()
	_, metrics := p.get("/metrics")
	_, ready := p.get("/readyz")
	_, status := p.get("/status.json?limit=10000")
	_, page := p.get("/")
	for place, text := range map[string]string{
		"log": p.stderr.String(), "/metrics": metrics, "/readyz": ready, "stdout": p.stdout.String(), "/status.json": status, "/": page,
	} {
		if i := strings.Index(strings.ToLower(text), marker); i >= 0 {
			t.Errorf("a secret in %s: %.300s", place, text[max(0, i-200):])
		}
	}
}

func TestNoSecretShows(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t, "--requirepass", marker).url(), "BACKEND_PASSWORD="+marker).wantReady()
	array := func(args ...string) string {
		var b strings.Builder
		b.WriteString("*" + strconv.Itoa(len(args)) + "\r\n")
		for _, a := range args {
			b.WriteString("$" + strconv.Itoa(len(a)) + "\r\n" + a + "\r\n")
		}
		return b.String()
	}
	for _, text := range []string{
		array("SET", marker, marker) + array("GET", marker) + array("INCR", marker),
		array("AUTH", marker) + array("AUTH", marker, marker) + array("HELLO", "3", "AUTH", marker, marker),
		array(marker, marker) + array("CONFIG", marker) + array("CLIENT", "SETNAME", marker),
		array("REPLICAOF", marker, "1") + array("MIGRATE", marker, marker),
		array("EVAL", "return redis.call('"+marker+"')", "0") + array("SUBSCRIBE", marker),
		array("MULTI") + array(marker) + array("EXEC"),
		marker + " " + marker + "\r\n", "SET " + marker + " \"" + marker + "\r\n",
		"*1\r\n$" + marker + "\r\n", "*" + marker + "\r\n", "*2\r\n$3\r\nGET\r\n:" + marker + "\r\n", "*1\r\n$99999999999\r\n" + marker,
		"GET /" + marker + " HTTP/1.1\r\nAuthorization: " + marker + "\r\n\r\n",
		array("SET", marker, strings.Repeat(marker, 20000)),
		"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1000000\r\n" + marker, // and gone
	} {
		say(t, session(t, p), text)
		plain, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		say(t, plain, text)
	}
	wantNoMarker(t, p)
	p.wantEnd()
	if strings.Contains(strings.ToLower(p.stderr.String()), marker) {
		t.Error("a secret in the log of the end")
	}
}

// A backend may send anything, and what it sends is data of somebody.
func TestNoSecretShowsWhereTheBackendIsBroken(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"garbage": "?" + marker + "\r\n", "an error": "-ERR " + marker + "\r\n", "a length": "$" + marker + "\r\n",
		"too much": "+OK\r\n+" + marker + "\r\n+" + marker + "\r\n+" + marker + "\r\n", "HTTP": "HTTP/1.1 400 " + marker + "\r\n\r\n",
	} {
		for _, password := range []string{"", marker} {
			t.Run(name+" password "+password, func(t *testing.T) {
				t.Parallel()
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				go func() { // ends with the listener
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						go func() { // ends with the connection, which the proxy closes
							defer c.Close()
							b := make([]byte, 4096)
							for {
								if _, err := c.Read(b); err != nil {
									return
								}
								io.WriteString(c, answer)
							}
						}()
					}
				}()
				vars := []string{}
				if password != "" {
					vars = append(vars, "BACKEND_PASSWORD="+password)
				}
				p := serving(t, "redis://"+ln.Addr().String(), vars...)
				for range 2 {
					c, err := tls.Dial("tcp", p.addr, p.clientTLS())
					if err != nil {
						t.Fatal(err)
					}
					say(t, c, "*2\r\n$3\r\nGET\r\n$13\r\n"+marker+"\r\n")
				}
				eventually(t, "probed", func() bool { return strings.Contains(p.stderr.String(), `"backend":"redis://`) })
				wantNoMarker(t, p)
				p.wantEnd()
			})
		}
	}
}

func TestNoSecretShowsInFaults(t *testing.T) {
	t.Parallel()
	for _, vars := range [][]string{
		{"BACKEND_URL=redis://user:" + marker + "@host:port"}, {"BACKEND_PASSWORD_FILE=" + marker}, {"BACKEND_URL_FILE=" + marker},
		{"BACKEND_PASSWORD=" + marker, "BACKEND_URL=redis://:" + marker + "@127.0.0.1:1"}, {"BACKEND_PASSWROD=" + marker},
		{"TLS_KEY_FILE=-----BEGIN PRIVATE KEY-----" + marker}, {"ADMIN_TOKEN_FILE=" + marker},
	} {
		p := dragontls(t, t.TempDir(), []string{"serve"}, vars)
		p.wantExit(exitConfig)
		if strings.Contains(p.stderr.String(), marker) {
			t.Errorf("%s: shown:\n%s", vars[0][:12], &p.stderr)
		}
	}
}

// A key file with another content than a key must not end up in the fault.
func TestNoSecretShowsWhereAFileHoldsNoKey(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url()).wantReady()
	write(t, p.file("server.key"), []byte("-----BEGIN PRIVATE KEY-----\n"+marker+"\n-----END PRIVATE KEY-----\n"))
	p.wantLog("reload refused, the last good certificates stay")
	write(t, filepath.Join(p.dir, "pki", "server.crt"), []byte(marker))
	eventually(t, "refused again", func() bool { return len(p.logged("reload refused, the last good certificates stay")) > 1 })
	wantNoMarker(t, p)
	p.wantEnd()
}
