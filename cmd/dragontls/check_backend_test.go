//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/resp"
)

// scripted answers each command by its name for as long as the test runs; without an answer the connection is closed.
// With conf it speaks TLS. It returns its address.
func scripted(t *testing.T, conf *tls.Config, answers map[string]string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		ln = tls.NewListener(ln, conf)
	}
	var all sync.WaitGroup
	all.Go(func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { // ends with the connection, which has a deadline
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				r := bufio.NewReader(c)
				for {
					args, err := readCommand(r)
					if err != nil || answers[args[0]] == "" {
						return
					}
					io.WriteString(c, answers[args[0]]+"\r\n")
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// readCommand reads a canonical array of words without line ends.
func readCommand(r *bufio.Reader) ([]string, error) {
	var n int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil || n < 1 {
		return nil, fmt.Errorf("header: %w", err)
	}
	args := make([]string, n)
	for i := range args {
		var length int
		if _, err := fmt.Fscanf(r, "$%d\r\n", &length); err != nil {
			return nil, err
		}
		b := make([]byte, length+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:length])
	}
	return args, nil
}

func (d *deployment) secret(password string) {
	d.vars["BACKEND_PASSWORD_FILE"] = d.file("password", password, 0o600)
}

// found runs the backend's checks as if own were all addresses of this machine, and returns their IDs.
func (d *deployment) found(own ...string) []string {
	d.t.Helper()
	s, err := unstarted(source{environ: d.env()})
	if err != nil {
		d.t.Fatal(err)
	}
	b := s.newBackendCheck()
	b.addresses = func() (list []netip.Addr) {
		for _, a := range own {
			list = append(list, netip.MustParseAddr(a))
		}
		return list
	}
	b.run(context.Background())
	var ids []string
	for _, f := range b.found {
		ids = append(ids, f.ID)
		if f.Subject == "" || f.Message == "" || f.Cure == "" || strings.Contains(fmt.Sprint(f), marker) {
			d.t.Errorf("got %+v", f)
		}
	}
	return ids
}

func wantIDs(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCheckAsksARealBackend(t *testing.T) {
	open := redisServer(t)
	locked := redisServer(t, "--requirepass", marker)
	acl := redisServer(t, "--requirepass", "other", "--user", "web", "on", ">"+marker, "~*", "+@all")
	half := redisServer(t, "--user", "web", "on", ">"+marker, "~*", "+@all") // its default user has no password
	at := locked.relayed(t)
	for _, c := range []struct {
		name  string
		setup func(d *deployment)
		want  []string
	}{
		{"clients authenticate themselves", func(d *deployment) { d.vars["BACKEND_URL"] = locked.url() }, nil},
		{"the right password", func(d *deployment) { d.vars["BACKEND_URL"] = locked.url(); d.secret(marker) }, nil},
		{"the right user", func(d *deployment) {
			d.vars["BACKEND_URL"] = acl.url()
			d.vars["BACKEND_USERNAME"] = "web"
			d.secret(marker)
		}, nil},
		{"by address", func(d *deployment) {
			d.vars["BACKEND_URL"] = fmt.Sprintf("redis://:%s@%s", marker, at)
		}, nil},
		{"by name", func(d *deployment) {
			d.vars["BACKEND_URL"] = fmt.Sprintf("redis://:%s@localhost:%d", marker, at.Port())
		}, nil},
		{"no password at all", func(d *deployment) { d.vars["BACKEND_URL"] = open.url() }, []string{"backend_no_password"}},
		{"a password it does not have", func(d *deployment) { d.vars["BACKEND_URL"] = open.url(); d.secret(marker) },
			[]string{"backend_credentials", "backend_no_password"}},
		{"a user beside an open default user", func(d *deployment) {
			d.vars["BACKEND_URL"] = half.url()
			d.vars["BACKEND_USERNAME"] = "web"
			d.secret(marker)
		}, []string{"backend_no_password"}},
		{"a wrong password", func(d *deployment) { d.vars["BACKEND_URL"] = locked.url(); d.secret("wrong" + marker) }, []string{"backend_credentials"}},
		{"an unknown user", func(d *deployment) {
			d.vars["BACKEND_URL"] = fmt.Sprintf("redis://nobody:%s@%s", marker, at)
		}, []string{"backend_credentials"}},
		{"nobody there", func(d *deployment) { d.vars["BACKEND_URL"] = "redis://" + ownAddress().String() }, []string{"backend_unreachable"}},
		{"no socket there", func(d *deployment) { d.vars["BACKEND_URL"] = "unix://" + d.path("none.sock") }, []string{"backend_unreachable"}},
		{"no such name", func(d *deployment) { d.vars["BACKEND_URL"] = "redis://no-such-host.invalid:6379" }, []string{"backend_unreachable"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeployment(t)
			c.setup(d)
			r := d.wantFound(c.want)
			for _, f := range r.Findings {
				if strings.Contains(fmt.Sprint(f), marker) {
					t.Errorf("a secret is shown: %+v", f)
				}
			}
		})
	}
}

// Where the backend tells its limit on clients, check compares it with what serve may open.
func TestCheckComparesMaxClients(t *testing.T) {
	few := redisServer(t, "--maxclients", "60", "--requirepass", marker)
	silent := redisServer(t, "--maxclients", "60", "--requirepass", "other", "--user", "web", "on", ">"+marker, "~*", "+@all", "-config")
	for _, c := range []struct {
		name, most string
		backend    *redis
		user       string
		password   bool
		want       []string
	}{
		{"more than it takes", "61", few, "", true, []string{"backend_max_clients"}},
		{"as many beside the one of the prober", "60", few, "", true, []string{"backend_max_clients"}},
		{"fewer", "59", few, "", true, nil},
		{"it cannot be asked before AUTH", "61", few, "", false, nil},
		{"the user may not ask", "61", silent, "web", true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeployment(t)
			d.vars["BACKEND_URL"], d.vars["BACKEND_MAX_CONNECTIONS"] = c.backend.url(), c.most
			if c.user != "" {
				d.vars["BACKEND_USERNAME"] = c.user
			}
			if c.password {
				d.secret(marker)
			}
			r := d.wantFound(c.want)
			for _, f := range r.Findings {
				if !strings.Contains(f.Message, "60 clients") || !strings.Contains(f.Message, "BACKEND_MAX_CONNECTIONS is "+c.most) {
					t.Errorf("got %q", f.Message)
				}
			}
		})
	}
}

func TestCheckTellsWhatABackendAnswers(t *testing.T) {
	for _, c := range []struct {
		name           string
		ping, auth     string
		user, password string
		want           []string
	}{
		{"it wants a password", "-NOAUTH Authentication required.", "", "", "", nil},
		{"its default user may do nothing", "-NOPERM this user has no permissions", "+OK", "", "p", nil},
		{"its default user may do nothing, and serve acts as another", "-NOPERM this user has no permissions", "+OK", "web", "p", []string{"backend_no_password"}},
		{"it loads", "-LOADING Dragonfly is loading", "+OK", "", "p", []string{"backend_busy"}},
		{"it loads when asked for the password", "-NOAUTH x", "-LOADING Redis is loading", "", "p", []string{"backend_busy"}},
		{"it is full", "-ERR max number of clients reached", "+OK", "", "", []string{"backend_max_clients"}},
		{"protected mode", "-DENIED Redis is running in protected mode", "", "", "p", []string{"backend_no_password"}},
		{"it runs commands and fails", "-MISCONF Errors writing to the AOF", "+OK", "", "", []string{"backend_no_password"}},
		{"a web server", "HTTP/1.1 400 Bad Request", "", "", "", []string{"backend_not_resp"}},
		{"endless", strings.Repeat("+", 10000), "", "", "", []string{"backend_not_resp"}},
		{"it closes", "", "", "", "", []string{"backend_unreachable"}},
		{"it closes at the password", "-NOAUTH x", "", "", "p", []string{"backend_unreachable"}},
		{"it quotes the password", "-NOAUTH x", "-WRONGPASS " + marker, "", marker, []string{"backend_credentials"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeployment(t)
			d.vars["BACKEND_URL"] = "redis://" + scripted(t, nil, map[string]string{"PING": c.ping, "AUTH": c.auth})
			if c.password != "" {
				d.secret(c.password)
			}
			if c.user != "" {
				d.vars["BACKEND_USERNAME"] = c.user
			}
			wantIDs(t, d.found(), c.want...)
		})
	}
}

// With a users file serve wants NOAUTH, whoever it acts as itself.
func TestCheckWantsABackendThatAsksMappedClientsForAPassword(t *testing.T) {
	user := []string{"--user", "web", "on", ">" + marker, "~*", "+@all"}
	for _, c := range []struct {
		name string
		args []string
		want []string
		says string
	}{
		{"the default user has a password", append(user, "--requirepass", "other"), nil, ""},
		{"it is off", append(user, "--user", "default", "off"), nil, ""},
		{"it is open", user, []string{"backend_no_password"}, "serve refuses it"},
		{"it has no password and no rights", append(user, "--user", "default", "on", "nopass", "-@all"), []string{"backend_no_password"}, "it may do little (-NOPERM)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeployment(t)
			d.vars["BACKEND_URL"] = redisServer(t, c.args...).url()
			d.file("web.pass", marker, 0o600)
			d.vars["USERS_FILE"] = d.file("users.yml", "users:\n  - match: [\"cn:web\"]\n    user: web\n    password_file: web.pass\n", 0o600)
			r := d.wantFound(c.want)
			if len(c.want) > 0 && !strings.Contains(r.Findings[0].Message, c.says) {
				t.Errorf("got %+v", r.Findings)
			}
		})
	}
}

func TestCheckWaitsForASilentBackendNoLongerThanServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := newDeployment(t)
	d.vars["BACKEND_CONNECT_TIMEOUT"] = "50ms"
	for _, scheme := range []string{"redis", "rediss"} {
		d.vars["BACKEND_URL"] = scheme + "://" + ln.Addr().String()
		wantIDs(t, d.found(), "backend_unreachable")
	}
}

func TestCheckJudgesTheBackendsTLS(t *testing.T) {
	d := newDeployment(t)
	ca, err := pki.NewCA("backend CA")
	if err != nil {
		t.Fatal(err)
	}
	d.file("backend-ca.crt", string(ca.PEM()), 0o644)
	issue := func(l pki.Leaf) tls.Certificate {
		cert, key, err := ca.Issue(l)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	here := []net.IP{net.IPv4(127, 0, 0, 1)}
	hours := func(h int) time.Time { return time.Now().Add(time.Duration(h) * time.Hour) }
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca.PEM())
	good := issue(pki.Leaf{IPs: here, Server: true})
	for _, c := range []struct {
		name string
		conf *tls.Config
		vars string
		want []string
		cure string
	}{
		{"good", &tls.Config{Certificates: []tls.Certificate{good}}, "backend-ca.crt", nil, ""},
		{"expired", &tls.Config{Certificates: []tls.Certificate{issue(pki.Leaf{IPs: here, Server: true, NotBefore: hours(-9), NotAfter: hours(-1)})}},
			"backend-ca.crt", []string{"backend_tls"}, "renew"},
		{"ends soon", &tls.Config{Certificates: []tls.Certificate{issue(pki.Leaf{IPs: here, Server: true, NotBefore: hours(-9), NotAfter: hours(1)})}},
			"backend-ca.crt", []string{"expires_soon"}, "renew"},
		{"of another CA", &tls.Config{Certificates: []tls.Certificate{good}}, "ca.crt", []string{"backend_tls"}, "BACKEND_CA_FILE"},
		{"of another name", &tls.Config{Certificates: []tls.Certificate{issue(pki.Leaf{DNS: []string{"db"}, Server: true})}},
			"backend-ca.crt", []string{"backend_tls"}, "BACKEND_SERVER_NAME"},
		{"wants a client certificate", &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients},
			"backend-ca.crt", []string{"backend_tls"}, "BACKEND_CERT_FILE"},
		{"no TLS", nil, "backend-ca.crt", []string{"backend_no_tls"}, "redis://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.t = t
			d.vars["BACKEND_URL"] = "rediss://" + scripted(t, c.conf, map[string]string{"PING": "-NOAUTH x"})
			d.vars["BACKEND_CA_FILE"] = d.path(c.vars)
			r := d.wantFound(c.want)
			if len(c.want) > 0 && !strings.Contains(r.Findings[0].Cure, c.cure) {
				t.Errorf("got %+v, want %q", r.Findings, c.cure)
			}
		})
	}
	t.Run("TLS where none is expected", func(t *testing.T) {
		d := newDeployment(t)
		d.vars["BACKEND_URL"] = "redis://" + scripted(t, &tls.Config{Certificates: []tls.Certificate{good}}, nil)
		r, _ := d.check()
		if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Cure, "rediss://") {
			t.Errorf("got %+v", r)
		}
	})
}

func TestCheckFindsABackendThatOthersReach(t *testing.T) {
	// An own address stands for one that others can reach. The backend is at the same port of 127.0.0.1.
	outside := ownAddress().Addr().String()
	r := newRedis(t, "--requirepass", marker)
	inside := r.relayed(t)
	r.args = append(r.args, "--bind", outside, "--port", fmt.Sprint(inside.Port()))
	r.start(t)
	d := newDeployment(t)
	d.vars["BACKEND_URL"] = "redis://" + inside.String()
	wantIDs(t, d.found(outside), "backend_exposed")
	d.vars["BACKEND_URL"] = fmt.Sprintf("redis://localhost:%d", inside.Port())
	wantIDs(t, d.found(outside), "backend_exposed")

	d.vars["BACKEND_URL"] = "redis://" + redisServer(t, "--requirepass", marker).relayed(t).String() // inside only
	wantIDs(t, d.found(outside))
}

func TestCheckDoesNotTakeItsOwnListenerForTheBackend(t *testing.T) {
	backend := scripted(t, nil, map[string]string{"PING": "-NOAUTH x"})
	_, port, _ := net.SplitHostPort(backend)
	d := newDeployment(t)
	d.vars["BACKEND_URL"] = "redis://" + backend
	for _, reply := range []string{
		"-ERR dragontls: this port speaks TLS only, connect with TLS and a client certificate",
		"-DENIED Redis is running in protected mode", "HTTP/1.1 400 Bad Request",
	} {
		ln, err := net.Listen("tcp", "127.0.0.3:"+port)
		if err != nil {
			t.Fatal(err)
		}
		var answering sync.WaitGroup
		answering.Go(func() { // ends with its one connection, or the listener
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			io.ReadFull(c, make([]byte, len(resp.AppendCommand(nil, "PING"))))
			io.WriteString(c, reply+"\r\n")
		})
		wantIDs(t, d.found("127.0.0.3"))
		ln.Close()
		answering.Wait()
	}
}

func TestCheckFindsClearTextAcrossTheNetwork(t *testing.T) {
	// Addresses of nobody (RFC 5737, 3849); nothing is sent there.
	for url, want := range map[string]string{
		"redis://198.51.100.7": "backend_in_clear", "redis://[2001:db8::7]:6380": "backend_in_clear", "redis://[::ffff:198.51.100.7]": "backend_in_clear",
		"rediss://198.51.100.7": "", "redis://127.0.0.1": "", "redis://[::1]": "", "redis://0.0.0.0": "", "redis://localhost": "", "unix:///run/x": "",
	} {
		d := newDeployment(t)
		d.vars["BACKEND_URL"] = url
		s, err := unstarted(source{environ: d.env()})
		if err != nil {
			t.Fatal(err)
		}
		b := s.newBackendCheck()
		b.addresses = func() []netip.Addr { return nil }
		b.judgeNetwork(context.Background(), s.c.Backend)
		if len(b.found) != strings.Count(want, "_")/2 || len(b.found) == 1 && b.found[0].ID != want {
			t.Errorf("%s: got %+v, want %q", url, b.found, want)
		}
		b.addresses = func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
		}
		b.found = nil
		if b.judgeAddress(); len(b.found) > 0 {
			t.Errorf("%s: got %+v of this machine's own address", url, b.found)
		}
	}
}

func TestCheckFollowsFilesThatChangedSinceTheyWereRead(t *testing.T) {
	d := newDeployment(t)
	d.vars["BACKEND_URL"] = "redis://127.0.0.1:1"
	d.secret("p")
	s, err := unstarted(source{environ: d.env()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.path("password")); err != nil {
		t.Fatal(err)
	}
	b := s.newBackendCheck()
	b.run(context.Background())
	if len(b.found) != 1 || b.found[0].ID != "backend_settings" {
		t.Errorf("got %+v", b.found)
	}
}

func TestLocalAddressesAreThoseOfTheInterfaces(t *testing.T) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for _, a := range all {
		if ip := a.(*net.IPNet).IP; !ip.IsLoopback() {
			fmt.Fprintln(&want, ip)
		}
	}
	for _, ip := range localAddresses() {
		if ip.IsLoopback() || !strings.Contains(want.String(), ip.WithZone("").String()+"\n") {
			t.Errorf("got %v, want one of\n%s", ip, &want)
		}
		if ip.IsLinkLocalUnicast() && ip.Is6() && ip.Zone() == "" {
			t.Errorf("got %v without the zone that a dial needs", ip)
		}
	}
}
