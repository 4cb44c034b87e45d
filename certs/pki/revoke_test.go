package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func made(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := Init(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// loadCRL returns ca.crl, which the CA in dir must have signed.
func loadCRL(t *testing.T, dir string) *x509.RevocationList {
	t.Helper()
	crl, err := readCRL(dir, loadPair(t, dir, "ca"))
	if err != nil || crl == nil {
		t.Fatalf("got %v, %v, want a CRL", crl, err)
	}
	return crl
}

func serials(crl *x509.RevocationList) string {
	var all []string
	for _, e := range crl.RevokedCertificateEntries {
		all = append(all, e.SerialNumber.Text(16))
	}
	return strings.Join(all, " ")
}

func TestInitMakesAnEmptyCRL(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	dir := made(t)
	crl := loadCRL(t, dir)
	if got := serials(crl); got != "" {
		t.Errorf("got %s revoked, want none", got)
	}
	if crl.ThisUpdate.Before(start) || crl.ThisUpdate.After(time.Now()) {
		t.Errorf("signed %v, want now", crl.ThisUpdate)
	}
	if lasts := crl.NextUpdate.Sub(crl.ThisUpdate); lasts != 365*24*time.Hour {
		t.Errorf("good for %v, want a year", lasts)
	}
	wantMode(t, filepath.Join(dir, "ca.crl"), 0o644)
}

func TestRevokeAddsASerialAndCountsUp(t *testing.T) {
	dir := made(t)
	if err := Client(dir, "web"); err != nil {
		t.Fatal(err)
	}
	client, web := loadPair(t, dir, "client").SerialNumber, loadPair(t, dir, "web").SerialNumber
	last := loadCRL(t, dir).Number
	want := ""
	for _, step := range []struct {
		what   string
		act    func() error
		serial *big.Int
	}{
		{"revoke client", func() error { return Revoke(dir, "client") }, client},
		{"renew", func() error { return RenewCRL(dir) }, nil},
		{"revoke web by its serial", func() error { return RevokeSerial(dir, web) }, web},
	} {
		if err := step.act(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if step.serial != nil {
			want = strings.TrimSpace(want + " " + step.serial.Text(16))
		}
		crl := loadCRL(t, dir)
		if got := serials(crl); got != want {
			t.Errorf("%s: got %q revoked, want %q", step.what, got, want)
		}
		if crl.Number.Cmp(last) <= 0 {
			t.Errorf("%s: got number %s after %s", step.what, crl.Number, last)
		}
		last = crl.Number
	}
	wantMode(t, filepath.Join(dir, "ca.crl"), 0o644)

	before, _ := os.ReadFile(filepath.Join(dir, "ca.crl"))
	if err := errors.Join(Revoke(dir, "web"), RevokeSerial(dir, client)); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked twice: got %v, want ErrRevoked", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "ca.crl")); !bytes.Equal(before, after) {
		t.Error("revoked twice: ca.crl changed")
	}
}

func TestRenewKeepsWhenAndWhy(t *testing.T) {
	dir := made(t)
	ca, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-400 * 24 * time.Hour).UTC().Truncate(time.Second)
	expired, err := ca.signCRL([]x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: long, ReasonCode: 1}},
		CRLOptions{ThisUpdate: long, Number: new(big.Int).Lsh(big.NewInt(1), 64)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crl"), expired, 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Show(dir, &out); err != nil || !strings.Contains(out.String(), "out of date") {
		t.Errorf("got %v and\n%s\nwant that it is out of date", err, &out)
	}
	if err := RenewCRL(dir); err != nil {
		t.Fatal(err)
	}
	crl := loadCRL(t, dir)
	if e := crl.RevokedCertificateEntries; len(e) != 1 || !e[0].RevocationTime.Equal(long) || e[0].ReasonCode != 1 {
		t.Errorf("got %+v, want serial 7, revoked %v for reason 1", e, long)
	}
	if !crl.NextUpdate.After(time.Now()) {
		t.Errorf("good until %v", crl.NextUpdate)
	}
	if want := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 64), big.NewInt(1)); crl.Number.Cmp(want) != 0 {
		t.Errorf("got number %s, want one above the last: %s", crl.Number, want)
	}
}

func TestRevokeRefuses(t *testing.T) {
	other := made(t)
	foreign, err := os.ReadFile(filepath.Join(other, "client.crt"))
	if err != nil {
		t.Fatal(err)
	}
	foreignCRL, err := os.ReadFile(filepath.Join(other, "ca.crl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		act  func(dir string) error
		want string
	}{
		{"an unknown name", func(dir string) error { return Revoke(dir, "nobody") }, "pki show"},
		{"a path", func(dir string) error { return Revoke(dir, "../x") }, "use 1 to 64"},
		{"the CA", func(dir string) error { return Revoke(dir, "ca") }, "pki init"},
		{"serial 0", func(dir string) error { return RevokeSerial(dir, new(big.Int)) }, "above zero"},
		{"a long serial", func(dir string) error { return RevokeSerial(dir, new(big.Int).Lsh(big.NewInt(1), 160)) }, "159 bits"},
		{"another CA's certificate", func(dir string) error {
			os.WriteFile(filepath.Join(dir, "client.crt"), foreign, 0o644)
			return Revoke(dir, "client")
		}, "only its own CA"},
		{"another CA's CRL", func(dir string) error {
			os.WriteFile(filepath.Join(dir, "ca.crl"), foreignCRL, 0o644)
			return Revoke(dir, "client")
		}, "not signed by the CA of this PKI"},
		{"half a CRL", func(dir string) error {
			os.WriteFile(filepath.Join(dir, "ca.crl"), foreignCRL[:60], 0o644)
			return RenewCRL(dir)
		}, "no PEM CRL"},
		{"a CA whose key is gone", func(dir string) error {
			os.Remove(filepath.Join(dir, "ca.key"))
			return Revoke(dir, "client")
		}, "ca.key"},
	} {
		dir := made(t)
		err := c.act(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrRevoked) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		}
	}
}

func TestRevokeMakesAMissingCRL(t *testing.T) {
	dir := made(t)
	os.Remove(filepath.Join(dir, "ca.crl"))
	var out bytes.Buffer
	if err := Show(dir, &out); err != nil || !strings.Contains(out.String(), "ca.crl: none") {
		t.Errorf("got %v and\n%s\nwant that there is none", err, &out)
	}
	if err := Revoke(dir, "client"); err != nil {
		t.Fatal(err)
	}
	if got, want := serials(loadCRL(t, dir)), loadPair(t, dir, "client").SerialNumber.Text(16); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestACAThatMayNotSignCRLs(t *testing.T) {
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	template, err := caTemplate("old")
	if err != nil {
		t.Fatal(err)
	}
	template.KeyUsage = x509.KeyUsageCertSign
	ca, err := signCA(template, template, key, key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := writePair(dir, "ca", ca.PEM(), keyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Client(dir, "web"); err != nil {
		t.Fatal(err)
	}
	if err := Revoke(dir, "web"); err == nil || !strings.Contains(err.Error(), "key usage lacks it") || !strings.Contains(err.Error(), "pki init") {
		t.Errorf("got %v, want what to do", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.crl")); err == nil {
		t.Error("a CRL was written")
	}
}

func TestRevocationsAtOnceAreAllKept(t *testing.T) {
	dir := made(t)
	const n = 12
	var revoking sync.WaitGroup
	for i := range n {
		revoking.Go(func() {
			if err := RevokeSerial(dir, big.NewInt(int64(i+1))); err != nil {
				t.Error(err)
			}
		})
	}
	revoking.Wait()
	if got := len(loadCRL(t, dir).RevokedCertificateEntries); got != n {
		t.Errorf("got %d revoked, want %d", got, n)
	}
}

func TestShowTellsWhatIsRevoked(t *testing.T) {
	dir := made(t)
	if err := errors.Join(Revoke(dir, "client"), RevokeSerial(dir, big.NewInt(0xabc))); err != nil {
		t.Fatal(err)
	}
	// A serial alone names nothing: this one has that of client, from another CA.
	foreign, err := NewCA("other")
	if err != nil {
		t.Fatal(err)
	}
	serial := loadPair(t, dir, "client").SerialNumber
	certPEM, _, err := foreign.Issue(Leaf{CN: "foreign", Serial: serial})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "foreign.crt"), certPEM, 0o644); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "ca.key")) // show does not need it
	var out bytes.Buffer
	if err := Show(dir, &out); err != nil {
		t.Fatal(err)
	}
	state := map[string]string{}
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) > 1 {
			state[f[0]] = f[len(f)-1]
		}
	}
	for name, want := range map[string]string{
		"client": "revoked", "server": "ok", "ca": "ok", "foreign": "ok", serial.Text(16): "client", "abc": "-", "ca.crl:": "2",
	} {
		if state[name] != want {
			t.Errorf("%s: got %q, want %q in\n%s", name, state[name], want, &out)
		}
	}
}

func TestCRLOptions(t *testing.T) {
	ca, err := NewCA("tests")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := ca.Intermediate("between")
	if err != nil {
		t.Fatal(err)
	}
	this := time.Now().Add(-48 * time.Hour).UTC().Truncate(time.Second)
	o := CRLOptions{Revoked: []*big.Int{big.NewInt(1), big.NewInt(2)}, ThisUpdate: this, NextUpdate: this.Add(time.Hour), Number: big.NewInt(9)}
	for _, c := range []*CA{ca, sub} {
		data, err := c.CRL(o)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		crl, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := crl.CheckSignatureFrom(c.cert); err != nil {
			t.Error(err)
		}
		if serials(crl) != "1 2" || !crl.ThisUpdate.Equal(this) || !crl.NextUpdate.Equal(this.Add(time.Hour)) || crl.Number.Int64() != 9 {
			t.Errorf("got %+v, want what was asked for", crl)
		}
	}
	if _, err := ca.CRL(CRLOptions{NextUpdate: this}); err == nil {
		t.Error("a CRL that ends before it begins was signed")
	}
}

// TestOpenSSLAgrees checks what others make of our CRL.
func TestOpenSSLAgrees(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip("openssl is not installed")
	}
	dir := made(t)
	openssl := func(args ...string) (string, error) {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	check := []string{"verify", "-crl_check", "-CAfile", "ca.crt", "-CRLfile", "ca.crl", "client.crt"}
	if out, err := openssl(check...); err != nil {
		t.Fatalf("before: %v\n%s", err, out)
	}
	if err := Revoke(dir, "client"); err != nil {
		t.Fatal(err)
	}
	if out, err := openssl(check...); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("got %v, want that it is revoked:\n%s", err, out)
	}
	check[len(check)-1] = "server.crt"
	if out, err := openssl(check...); err != nil {
		t.Errorf("another certificate: %v\n%s", err, out)
	}
	out, err := openssl("crl", "-in", "ca.crl", "-CAfile", "ca.crt", "-noout", "-text")
	if err != nil || !strings.Contains(out, "verify OK") {
		t.Errorf("got %v, want verify OK:\n%s", err, out)
	}
	number := fmt.Sprintf("X509v3 CRL Number: \n                %s", loadCRL(t, dir).Number)
	for _, want := range []string{"Serial Number: " + strings.ToUpper(evenHex(loadPair(t, dir, "client").SerialNumber)), number} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not print %q:\n%s", want, out)
		}
	}
}

func evenHex(n *big.Int) string { return fmt.Sprintf("%x", n.Bytes()) }
