//go:build unix

package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"dragontls/certs/pki"
)

// stapling is an endpoint of a PKI whose CA signs OCSP responses too.
func stapling(t *testing.T, r ocsp.Response) (e *probed, args []string) {
	t.Helper()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	load := func(name string) tls.Certificate {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	ca, shown := load("ca"), load("server")
	r.SerialNumber = shown.Leaf.SerialNumber
	staple, err := ocsp.CreateResponse(ca.Leaf, ca.Leaf, r, ca.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	shown.OCSPStaple = staple
	e = newProbed(t)
	e.caFile = filepath.Join(dir, "ca.crt")
	e.config.Certificates, e.config.ClientCAs = []tls.Certificate{shown}, readPool(t, e.caFile)
	return e, []string{"--ca", e.caFile, "--cert", filepath.Join(dir, "client.crt"), "--key", filepath.Join(dir, "client.key")}
}

func TestProbeReadsStapledResponses(t *testing.T) {
	now := time.Now()
	hour := time.Hour
	for _, c := range []struct {
		name         string
		response     ocsp.Response
		result, part string
	}{
		{"good", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-hour), NextUpdate: now.Add(hour)}, probeOK, "good; from "},
		{"revoked", ocsp.Response{Status: ocsp.Revoked, RevokedAt: now.Add(-hour), ThisUpdate: now.Add(-hour), NextUpdate: now.Add(hour)}, probeFail, "revoked at"},
		{"unknown", ocsp.Response{Status: ocsp.Unknown, ThisUpdate: now.Add(-hour), NextUpdate: now.Add(hour)}, probeFail, "does not know"},
		{"out of date", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-2 * hour), NextUpdate: now.Add(-hour)}, probeFail, "out of date"},
		{"early", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(hour), NextUpdate: now.Add(2 * hour)}, probeFail, "only in future"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, args := stapling(t, c.response)
			r := probing(t, e.start(), args...)
			r.wantCheck(t, "OCSP stapling", c.result, c.part)
			if c.result == probeFail {
				r.wantOnly(t, "OCSP stapling")
			} else {
				r.wantOnly(t)
			}
		})
	}
	t.Run("of another CA", func(t *testing.T) {
		e, args := stapling(t, ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-hour), NextUpdate: now.Add(hour)})
		other, _ := stapling(t, ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-hour), NextUpdate: now.Add(hour)})
		e.config.Certificates[0].OCSPStaple = other.config.Certificates[0].OCSPStaple
		probing(t, e.start(), args...).wantCheck(t, "OCSP stapling", probeFail, "no good")
	})
}

func TestProbeWantsAStapleWhereTheCertificateDoes(t *testing.T) {
	var p prober
	p.checkStaple(nil, &x509.Certificate{Extensions: []pkix.Extension{{Id: mustStaple}}}, nil, time.Now())
	p.report.wantCheck(t, "OCSP stapling", probeFail, "demands it")
}

func TestProbeFindsWeakSignatures(t *testing.T) {
	name, other := []byte("a"), []byte("b")
	for _, c := range []struct {
		cert  x509.Certificate
		fails int
	}{
		{x509.Certificate{RawSubject: name, RawIssuer: other, SignatureAlgorithm: x509.SHA1WithRSA}, 1},
		{x509.Certificate{RawSubject: name, RawIssuer: other, SignatureAlgorithm: x509.SHA256WithRSA}, 0},
		{x509.Certificate{RawSubject: name, RawIssuer: name, SignatureAlgorithm: x509.SHA1WithRSA}, 0}, // a root
	} {
		var p prober
		p.checkKeys([]*x509.Certificate{&c.cert})
		if got := p.report.findings(); got != c.fails {
			t.Errorf("%v by %s: got %d findings, want %d", c.cert.SignatureAlgorithm, c.cert.RawIssuer, got, c.fails)
		}
	}
}

func TestProbeTellsOfExpirySoon(t *testing.T) {
	e := newProbed(t)
	l := serverLeaf()
	l.NotAfter = time.Now().Add(9*24*time.Hour + time.Hour)
	l.NotBefore = time.Now().Add(-80 * 24 * time.Hour)
	e.shows(e.ca, l)
	r := e.probe()
	r.wantOnly(t)
	r.wantCheck(t, "expiry", probeInfo, "9 days left")
}

func TestProbeVerifiesACompleteChain(t *testing.T) {
	e := newProbed(t)
	e.shows(between(t, e.ca), serverLeaf())
	r := e.probe()
	r.wantOnly(t)
	r.wantCheck(t, "chain order", probeOK, "2 sent")
	r.wantCheck(t, "certificate 2", probeInfo, "CN=between, issuer CN=root")
	r.wantCheck(t, "expiry of 2", probeOK, "days left")
}

func TestProbeTellsThatNothingIsResumed(t *testing.T) {
	e := newProbed(t)
	e.config.SessionTicketsDisabled = true
	r := e.probe()
	r.wantOnly(t)
	r.wantCheck(t, "resumption, TLS 1.2", probeInfo, "full handshake")
	r.wantCheck(t, "resumption, TLS 1.3", probeInfo, "full handshake")
}

func TestProbeAcceptsOneModernVersion(t *testing.T) {
	e := newProbed(t)
	e.config.MinVersion = tls.VersionTLS13
	r := e.probe()
	r.wantOnly(t)
	r.wantCheck(t, "TLS 1.2", probeInfo, "not accepted: alert")
}

func TestProbeWithoutAClientCertificate(t *testing.T) {
	e := newProbed(t)
	r := probing(t, e.start(), "--ca", e.caFile)
	r.wantOnly(t)
	r.wantCheck(t, "PING", probeInfo, "see --cert and --key")
	r.wantCheck(t, "client certificate, TLS 1.3", probeOK, "required")
	r.wantCheck(t, "resumption, TLS 1.3", probeInfo, "not tried")
}

func TestProbeWithAClientCertificateThatIsRefused(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		e := newProbed(t)
		e.config.MaxVersion = version
		cert, key := pair(t, newCA(t, "other"), pki.Leaf{CN: "c", Client: true})
		r := probing(t, e.start(), "--ca", e.caFile, "--cert", cert, "--key", key)
		r.wantOnly(t, "PING")
		r.wantCheck(t, "PING", probeFail, `--cert is refused: alert "unknown certificate authority"`)
	}
}

func TestProbeAuthenticates(t *testing.T) {
	passwords := t.TempDir()
	good, bad := filepath.Join(passwords, "good"), filepath.Join(passwords, "bad")
	write(t, good, []byte("correct-horse\n"))
	write(t, bad, []byte("battery-staple\n"))
	for _, c := range []struct {
		name     string
		args     []string
		findings []string
		auth     string // its result
		ping     string
	}{
		{"no password", nil, nil, "", "NOAUTH"},
		{"default user", []string{"--password-file", good}, nil, probeOK, "+PONG"},
		{"named user", []string{"--username", "bob", "--password-file", good}, nil, probeOK, "+PONG"},
		{"wrong password", []string{"--password-file", bad}, []string{"AUTH"}, probeFail, "NOAUTH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newProbed(t)
			e.redis.RequireAuth("correct-horse")
			e.redis.RequireUserAuth("bob", "correct-horse")
			r := e.probe(c.args...)
			r.wantOnly(t, c.findings...)
			if c.auth != "" {
				r.wantCheck(t, "AUTH", c.auth, "")
			}
			r.wantCheck(t, "PING", probeOK, c.ping)
		})
	}
}

func TestProbeSendsNoPasswordToWhomItDoesNotTrust(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, []byte("correct-horse"))
	for _, c := range []struct {
		name  string
		other func(e *probed)
		sent  bool
	}{
		{"another name", func(e *probed) { e.shows(e.ca, pki.Leaf{DNS: []string{"other.example"}, Server: true}) }, false},
		{"another CA", func(e *probed) { e.shows(newCA(t, "other"), serverLeaf()) }, false},
		{"a good one", func(*probed) {}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newProbed(t)
			c.other(e)
			var mu sync.Mutex
			sent := false
			e.answer = func(command string) string {
				if !strings.Contains(command, "correct-horse") {
					return ""
				}
				mu.Lock()
				defer mu.Unlock()
				sent = true
				// What a server says that does not know the command.
				return "ERR unknown command, with args beginning with: correct-horse"
			}
			address := e.start()
			args := append([]string{"probe", address, "--password-file", file}, e.withClient()...)
			got := invoke(nil, args...)
			asJSON := invoke(nil, append(args, "--json")...)
			if strings.Contains(got.stdout+got.stderr+asJSON.stdout+asJSON.stderr, "correct-horse") {
				t.Errorf("the password is in the output: %+v", got)
			}
			mu.Lock()
			defer mu.Unlock()
			if sent != c.sent {
				t.Errorf("password sent: got %v, want %v; %s", sent, c.sent, got.stdout)
			}
			if got.code != exitFailed {
				t.Errorf("got exit code %d, want %d", got.code, exitFailed)
			}
		})
	}
}

func TestProbeSendsNoPasswordToASecondCertificate(t *testing.T) {
	e := newProbed(t)
	address := e.start()
	cert, _ := pair(t, e.ca, serverLeaf())
	block := readPEM(t, cert)
	p := &prober{probeOptions: probeOptions{address: address, serverName: "localhost", timeout: time.Minute}}
	if r := p.try(probeAttempt{leaf: block, commands: []string{probePing}}); r.err == nil || !strings.Contains(r.err.Error(), "another certificate") {
		t.Errorf("got %v, want a refusal", r.err)
	}
	r := p.try(probeAttempt{leaf: e.config.Certificates[0].Leaf, commands: []string{probePing}})
	if r.err != nil && strings.Contains(r.err.Error(), "another certificate") {
		t.Errorf("the same certificate: got %v", r.err)
	}
}

func readPEM(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(read(t, path)))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// peer answers each connection in clear until the test ends.
func peer(t *testing.T, answer func(net.Conn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				answer(conn)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
	return ln.Addr().String()
}

func TestProbeTellsPeersThatDoNotSpeakTLSApart(t *testing.T) {
	for _, c := range []struct {
		name          string
		answer        func(net.Conn)
		old           string // result of TLS 1.0
		how           string
		findings      []string
		handshakeCure string
	}{
		{"in clear", func(c net.Conn) {
			io.WriteString(c, "220 mail.example\r\n")
			io.Copy(io.Discard, c)
		}, probeFail, "the answer is not TLS", []string{"TLS 1.0", "TLS 1.1", "TLS 1.2 or 1.3", "handshake"}, "does not speak TLS"},
		{"reset", func(c net.Conn) {
			c.Read(make([]byte, 1))
			c.(*net.TCPConn).SetLinger(0)
		}, probeInfo, "connection reset without an alert", []string{"TLS 1.2 or 1.3", "handshake"}, "log"},
		{"closed", func(c net.Conn) {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		}, probeInfo, "connection closed without an alert", []string{"TLS 1.2 or 1.3", "handshake"}, "log"},
		{"alert", func(c net.Conn) {
			c.Write([]byte{21, 3, 1, 0, 2, 2, 40})
			io.Copy(io.Discard, c)
		}, probeInfo, `alert "handshake failure"`, []string{"TLS 1.2 or 1.3", "handshake"}, "log"},
		{"silent", func(c net.Conn) { io.Copy(io.Discard, c) },
			probeFail, "no answer within 150ms", []string{"TLS 1.0", "TLS 1.1", "TLS 1.2 or 1.3", "handshake"}, "log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"--timeout", "1m"}
			if c.name == "silent" {
				args = []string{"--timeout", "150ms"}
			}
			r := probing(t, peer(t, c.answer), args...)
			r.wantOnly(t, c.findings...)
			r.wantCheck(t, "TLS 1.0", c.old, c.how)
			r.wantCheck(t, "TLS 1.3", probeInfo, c.how)
			r.wantCheck(t, "handshake", probeFail, c.handshakeCure)
		})
	}
}

// A server that speaks RESP in clear takes a ClientHello for the beginning of a command and says nothing.
func TestProbeRecognisesRESPInClearAtOnce(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"--requirepass", "p"}} {
		r := probing(t, redisOnTCP(t, args...).address.String(), "--timeout", "10m")
		r.wantOnly(t, "handshake")
		r.wantCheck(t, "handshake", probeFail, "the port speaks RESP without TLS")
		r.wantCheck(t, "connect", probeOK, ":")
	}
	// Dragonfly with TLS says so in clear, and then speaks TLS.
	p := &prober{probeOptions: probeOptions{timeout: time.Minute, address: peer(t, func(c net.Conn) {
		io.WriteString(c, "-ERR Bad TLS header, double check if you enabled TLS for your client.\r\n")
	})}}
	if p.answersInClear() {
		t.Errorf("got %+v", p.report)
	}
}

func TestProbeWithNobodyThere(t *testing.T) {
	r := probing(t, ownAddress().String())
	r.wantOnly(t, "connect")
	r.wantCheck(t, "connect", probeFail, "refused")
}

func TestProbeKeepsForeignNamesFromTheTerminal(t *testing.T) {
	e := newProbed(t)
	l := serverLeaf()
	l.CN = "\x1b[31mred\r\nok    forged"
	e.shows(e.ca, l)
	got := invoke(nil, append([]string{"probe", e.start()}, e.withClient()...)...)
	if got.code != exitOK || strings.ContainsAny(got.stdout, "\x1b\r") || strings.Contains(got.stdout, "\nok    forged") || !strings.Contains(got.stdout, "red??ok") {
		t.Errorf("got %q", got.stdout)
	}
}
