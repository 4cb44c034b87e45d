//go:build unix

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"dragontls/certs/pki"
)

// An encrypted key is served with its passphrase, from the start and after a rotation, and the passphrase shows nowhere.
func TestAnEncryptedKeyIsServed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	key, passphrase := filepath.Join(dir, "pki", "server.key"), filepath.Join(dir, "passphrase")
	write(t, passphrase, []byte(marker+"\n"))
	encrypt := func(of, to string) {
		t.Helper()
		wantTool(t, "", "openssl", "pkcs8", "-topk8", "-in", of, "-passout", "file:"+passphrase, "-out", to)
	}
	encrypt(key, key+".new")
	rename(t, key, []byte(read(t, key+".new")))

	// Without the passphrase the cure is told, at start and by check.
	for _, command := range []string{"serve", "check"} {
		p := dragontls(t, dir, []string{command}, proxyVars("redis://127.0.0.1:1"))
		p.wantExit(exitConfig)
		if text := p.stderr.String(); !strings.Contains(text, "it is encrypted") || !strings.Contains(text, "DRAGONTLS_TLS_KEY_PASSWORD_FILE") {
			t.Errorf("%s says\n%s", command, text)
		}
	}
	p := servingIn(t, dir, append(proxyVars(redisServer(t).url()), "TLS_KEY_PASSWORD_FILE="+passphrase, "TLS_RELOAD_INTERVAL=100ms")...).wantReady()
	st, err := handshake(p.addr, p.clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	before := st.PeerCertificates[0].SerialNumber
	dragontls(t, dir, []string{"pki", "rotate"}, nil).wantExit(exitOK)
	rotated := func() bool {
		st, err := handshake(p.addr, p.clientTLS())
		return err == nil && st.PeerCertificates[0].SerialNumber.Cmp(before) != 0
	}
	eventually(t, "a key that is not encrypted is served too", rotated)
	st, err = handshake(p.addr, p.clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	before = st.PeerCertificates[0].SerialNumber
	next := t.TempDir()
	wantTool(t, "", "cp", "-r", filepath.Join(dir, "pki"), filepath.Join(next, "pki"))
	dragontls(t, next, []string{"pki", "rotate"}, nil).wantExit(exitOK)
	encrypt(filepath.Join(next, "pki", "server.key"), filepath.Join(next, "encrypted"))
	rename(t, key, []byte(read(t, filepath.Join(next, "encrypted"))))
	rename(t, filepath.Join(dir, "pki", "server.crt"), []byte(read(t, filepath.Join(next, "pki", "server.crt"))))
	eventually(t, "the next encrypted key is served", rotated)
	wantNoMarker(t, p)
	p.wantEnd()
}

// Certificates that OpenSSL makes and that are not accepted are refused for reasons that name what is wrong, in the metrics and
// in the log. A key that is of no use here is never shown.
func TestClientCertificatesThatPeopleBring(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url()).wantReady()
	dir := t.TempDir()
	key, request, cert, ext := filepath.Join(dir, "key"), filepath.Join(dir, "request"), filepath.Join(dir, "cert"), filepath.Join(dir, "ext")
	for _, c := range []struct{ name, key, usage, digest, reason, says string }{
		{"signed with SHA-1", "rsa:2048", "digitalSignature", "-sha1", "signature_algorithm", "SHA1"},
		{"a key that may not sign", "rsa:2048", "keyEncipherment", "-sha256", "bad_certificate", "digitalSignature"},
		{"an RSA-PSS key", "rsa-pss", "digitalSignature", "-sha256", "no_certificate", ""},
	} {
		write(t, ext, []byte("keyUsage="+c.usage+"\nextendedKeyUsage=clientAuth\n"))
		wantTool(t, "", "openssl", "req", "-new", "-newkey", c.key, "-nodes", "-keyout", key, "-subj", "/CN=brought", "-out", request)
		wantTool(t, "", "openssl", "x509", "-req", "-in", request, "-CA", p.file("ca.crt"), "-CAkey", p.file("ca.key"),
			"-set_serial", "7", "-days", "3", "-extfile", ext, c.digest, "-out", cert)
		logged := len(p.logged("handshake refused"))
		sClient(t, p, "-cert", cert, "-key", key, "-cipher", "DEFAULT@SECLEVEL=0")
		eventually(t, c.name+": a log line", func() bool { return len(p.logged("handshake refused")) > logged })
		line := p.logged("handshake refused")[logged]
		if text, _ := line["error"].(string); line["reason"] != c.reason || !strings.Contains(text, c.says) {
			t.Errorf("%s: logged %v", c.name, line)
		}
		p.wantMetric(1, "handshakes_total", "result", "refused", "reason", c.reason)
	}
	p.wantEnd()
}

// check names what is wrong with files that were made for something else, in one round.
func TestCheckNamesWhatPeopleBring(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	wantTool(t, "", "openssl", "x509", "-in", filepath.Join(dir, "pki", "ca.crt"), "-outform", "der", "-out", filepath.Join(dir, "ca.der"))
	write(t, filepath.Join(dir, "allow"), []byte("cm:web\n"))
	write(t, filepath.Join(dir, "users.yaml"), []byte("users: []\n"))
	vars := append(proxyVars("redis://127.0.0.1:1"), "TLS_CERT_FILE=pki/server.key", "TLS_KEY_FILE=pki/server.crt", "TLS_CLIENT_CA_FILE=ca.der",
		"ALLOW=cm:x", "ALLOW_FILE=allow", "USERS_FILE=users.yaml")
	for _, command := range []string{"serve", "check"} {
		p := dragontls(t, dir, []string{command}, vars)
		p.wantExit(exitConfig)
		for _, part := range []string{"certificate and key are swapped", "a certificate in DER", "openssl x509 -inform der -in ca.der -out ca.der.pem", "cm:x", "cm:web", "users.yaml:1"} {
			if !strings.Contains(p.stderr.String(), part) {
				t.Errorf("%s does not say %q:\n%s", command, part, &p.stderr)
			}
		}
	}
}
