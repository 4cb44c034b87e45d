package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
)

func TestKeyForms(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, _ := x509.MarshalECPrivateKey(ec)
	edDER, _ := x509.MarshalPKCS8PrivateKey(ed)
	rsDER, _ := x509.MarshalPKCS8PrivateKey(rs)
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	old := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("x")})
	tests := []struct {
		name  string
		file  []byte
		fault string // empty: a good key
	}{
		{"SEC 1", block("EC PRIVATE KEY", sec1), ""},
		{"SEC 1 after its parameters", slices.Concat(block("EC PARAMETERS", []byte{6, 0}), block("EC PRIVATE KEY", sec1)), ""},
		{"PKCS #1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs)), ""},
		{"PKCS #8 RSA", block("PRIVATE KEY", rsDER), ""},
		{"PKCS #8 Ed25519", block("PRIVATE KEY", edDER), ""},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", []byte("x")), "encrypted"},
		{"encrypted in the old way", old, "encrypted"},
		{"garbage inside", block("PRIVATE KEY", []byte("x")), "asn1"},
		{"no key", []byte("hello"), "no complete PEM key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := parseKey("f", test.file, func() ([]byte, error) { return nil, nil })
			if test.fault == "" && (err != nil || key == nil) {
				t.Errorf("refused: %v", err)
			}
			if test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
				t.Errorf("got %v, want an error with %q", err, test.fault)
			}
		})
	}
}

func TestADamagedBlockIsNotSkipped(t *testing.T) {
	f := newFixture(t)
	one, two := f.ca.PEM(), newCA(t, "two").PEM()
	damaged := slices.Clone(one)
	damaged[len(damaged)/2] = '!'
	for name, file := range map[string][]byte{
		"first":  slices.Concat(damaged, two),
		"last":   slices.Concat(two, damaged),
		"begun":  slices.Concat(two, one[:30]),
		"header": append([]byte("some text\n"), one[20:]...),
	} {
		if got, err := parseCerts("f", file); err == nil {
			t.Errorf("%s: %d certificates read", name, len(got))
		}
	}
	if got, err := parseCerts("f", slices.Concat([]byte("text\n"), one, []byte("more\n"), two)); len(got) != 2 || err != nil {
		t.Errorf("%d certificates, %v; want both", len(got), err)
	}
}
