//go:build unix

package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// opensslOCSP writes the response of OpenSSL's responder for pki/server.crt. entry is that of its index, as openssl ca
// writes it: V for valid, or R with the time of the revocation.
func opensslOCSP(t *testing.T, dir, entry string) {
	t.Helper()
	file := func(name string) string { return filepath.Join(dir, "pki", name) }
	block, _ := pem.Decode([]byte(read(t, file("server.crt"))))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	status, revoked, _ := strings.Cut(entry, " ")
	write(t, file("index.txt"), fmt.Appendf(nil, "%s\t%s\t%s\t%X\tunknown\t/CN=server\n",
		status, leaf.NotAfter.UTC().Format("060102150405Z"), revoked, leaf.SerialNumber.Bytes()))
	wantTool(t, "", "openssl", "ocsp", "-index", file("index.txt"), "-CA", file("ca.crt"), "-rsigner", file("ca.crt"), "-rkey", file("ca.key"),
		"-issuer", file("ca.crt"), "-cert", file("server.crt"), "-ndays", "1", "-respout", file("new.ocsp"))
	rename(t, file("server.ocsp"), []byte(read(t, file("new.ocsp"))))
}

func TestOpenSSLVerifiesTheStapledResponse(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	chain := read(t, filepath.Join(dir, "pki", "server.crt")) + read(t, filepath.Join(dir, "pki", "ca.crt"))
	write(t, filepath.Join(dir, "pki", "chain.crt"), []byte(chain))
	opensslOCSP(t, dir, "V ")
	r := &receiver{}
	hook := httptest.NewServer(r)
	defer hook.Close()
	p := servingIn(t, dir, append(proxyVars(redisServer(t).url()), "TLS_CERT_FILE=pki/chain.crt", "TLS_OCSP=pki/server.ocsp",
		"ALERT_WEBHOOK_URL="+hook.URL)...).wantReady()
	status := func(version string) string {
		return sClient(t, p, version, "-status", "-cert", p.file("client.crt"), "-key", p.file("client.key"))
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		wantParts(t, status(version), "OCSP Response Status: successful", "Cert Status: good", "Verify return code: 0 (ok)")
	}
	if end := time.Unix(int64(p.metrics().sum("ocsp_next_update_seconds")), 0); time.Until(end) > 24*time.Hour || time.Until(end) < 23*time.Hour {
		t.Errorf("the response ends %v, want in a day", end)
	}

	opensslOCSP(t, dir, "R "+time.Now().UTC().Add(-time.Minute).Format("060102150405Z"))
	if line := p.wantLog("server certificate is revoked"); line["level"] != "error" || line["cure"] == "" {
		t.Errorf("got %v", line)
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		wantParts(t, status(version), "OCSP response: no response sent")
	}
	if p.metrics().has("ocsp_next_update_seconds") {
		t.Error("a response that is not stapled is in the metrics")
	}
	eventually(t, "the webhook hears of the revocation", func() bool { return len(r.with("REVOKED", "pki/chain.crt", "Cure: ")) == 1 })
	p.wantEnd()
}
