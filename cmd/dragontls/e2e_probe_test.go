//go:build unix

package main

import (
	"os/exec"
	"strings"
	"testing"

	"dragontls/certs/pki"
)

// flagsOfProbe are what probe needs for a PKI of "dragontls pki".
func (p *instance) flagsOfProbe() []string {
	return []string{"--ca", p.file("ca.crt"), "--cert", p.file("client.crt"), "--key", p.file("client.key")}
}

func TestProbeOfServe(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url()).wantReady()
	r := probing(t, p.addr, p.flagsOfProbe()...)
	r.wantOnly(t)
	r.wantCheck(t, "client certificate, TLS 1.2", probeOK, "required; without one: alert")
	r.wantCheck(t, "client certificate, TLS 1.3", probeOK, "required; without one: alert")
	r.wantCheck(t, "unknown CA, TLS 1.3", probeOK, "alert")
	r.wantCheck(t, "resumption, TLS 1.2", probeOK, "resumes")
	r.wantCheck(t, "resumption, TLS 1.3", probeOK, "resumes")
	r.wantCheck(t, "PING", probeOK, "+PONG")
	p.wantEnd()
}

func TestProbeOfServeThatDemandsNoCertificate(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url(), "TLS_CLIENT_AUTH=optional").wantReady()
	r := probing(t, p.addr, p.flagsOfProbe()...)
	r.wantOnly(t, "client certificate, TLS 1.2", "client certificate, TLS 1.3")
	r.wantCheck(t, "client certificate, TLS 1.3", probeFail, "TLS_CLIENT_AUTH=require")
	p.wantEnd()
}

// TestProbeOfDev runs the binary itself as a person would.
func TestProbeOfDev(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := tool(t, p.dir, "", path, "probe", p.addr, "--ca", "pki/ca.crt", "--cert", "pki/client.crt", "--key", "pki/client.key")
	if err != nil || strings.Contains(out, probeFail) || !strings.Contains(out, "+PONG") || !strings.HasSuffix(out, "\nnothing is wrong\n") {
		t.Errorf("got %v and\n%s", err, out)
	}
	p.wantEnd()
}

// TestProbeOfOpenSSL is about a server with another implementation of TLS. It sends back each line in reverse.
func TestProbeOfOpenSSL(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	ca := newCA(t, "root")
	cert, key := pair(t, ca, serverLeaf())
	caFile := cert + ".ca"
	write(t, caFile, ca.PEM())
	cmd := exec.Command("openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", cert, "-key", key, "-CAfile", caFile,
		"-Verify", "1", "-verify_return_error", "-tls1_2", "-rev")
	cmd.Env = environ()
	s := launch(t, cmd)
	var address string
	eventually(t, "openssl accepts, and says where", func() bool {
		if !s.running() {
			t.Fatalf("ended:\n%s%s", &s.stdout, &s.stderr)
		}
		_, rest, _ := strings.Cut(s.stdout.String(), "ACCEPT ")
		line, _, whole := strings.Cut(rest, "\n")
		address = strings.TrimSpace(line)
		return whole
	})
	clientCert, clientKey := pair(t, ca, pki.Leaf{CN: "client", Client: true})
	r := probing(t, address, "--ca", caFile, "--cert", clientCert, "--key", clientKey)
	r.wantOnly(t, "PING")
	r.wantCheck(t, "TLS 1.1", probeOK, `alert "protocol version`)
	r.wantCheck(t, "TLS 1.2", probeOK, "accepted: TLS_ECDHE_ECDSA_")
	r.wantCheck(t, "TLS 1.3", probeInfo, `alert "protocol version`)
	r.wantCheck(t, "client certificate, TLS 1.2", probeOK, "alert")
	r.wantCheck(t, "unknown CA, TLS 1.2", probeOK, "alert")
	r.wantCheck(t, "resumption, TLS 1.2", probeOK, "resumes")
	r.wantCheck(t, "PING", probeFail, `no +PONG but "1*"`)
}
