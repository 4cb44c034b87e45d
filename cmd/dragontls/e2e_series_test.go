//go:build unix

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// lists is what the CRL metrics say of an issuer.
func (s samples) lists(issuer string) (series int, nextUpdate, entries float64) {
	for _, one := range s {
		if one.name == "crl_next_update_seconds" && one.labels["issuer"] == issuer {
			series++
			nextUpdate = one.value
		}
	}
	return series, nextUpdate, s.sum("crl_entries", "issuer", issuer)
}

func TestMetricsTellEveryCertificateAndList(t *testing.T) {
	t.Parallel()
	ca, twin, sameName := newCA(t, "root"), newCA(t, "twin"), newCA(t, "twin")
	dir := t.TempDir()
	now := time.Now().Truncate(time.Second)
	soon := now.Add(5 * 24 * time.Hour)
	bundle := slices.Concat(ca.PEM(), twin.PEM(), sameName.PEM(), withSerial(t, 7, soon), withSerial(t, 7, soon.Add(time.Hour)))
	list := func(by *pki.CA, hours int, revoked ...*big.Int) []byte {
		text, err := by.CRL(pki.CRLOptions{Revoked: revoked, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Duration(hours) * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	cas, crls := filepath.Join(dir, "clients.crt"), filepath.Join(dir, "list.crl")
	write(t, cas, bundle)
	write(t, crls, slices.Concat(list(ca, 1), list(ca, 48, big.NewInt(1), big.NewInt(2)), list(ca, 2),
		list(twin, 24, big.NewInt(3)), list(sameName, 3, big.NewInt(4))))
	p := ownCA(t, ca, redisServer(t).url(), "TLS_CLIENT_CA_FILE="+cas, "TLS_CRL_FILE="+crls).wantReady()
	m := p.metrics()
	var ends []float64
	for _, one := range m {
		if one.name == "cert_not_after_seconds" && one.labels["role"] == "client_ca" && one.labels["serial"] == "7" {
			ends = append(ends, one.value)
			if len(one.labels["sha256"]) != 16 {
				t.Errorf("got %v", one.labels)
			}
		}
	}
	slices.Sort(ends)
	if want := []float64{float64(soon.Unix()), float64(soon.Unix() + 3600)}; !slices.Equal(ends, want) {
		t.Errorf("two CAs with one serial end at %v, want %v", ends, want)
	}
	for issuer, want := range map[string]struct{ hours, entries int }{
		"CN=root": {48, 2}, // one list in date is enough
		"CN=twin": {3, 2},  // two CAs: the clients of one are refused first
	} {
		series, next, entries := m.lists(issuer)
		if series != 1 || next != float64(now.Add(time.Duration(want.hours)*time.Hour).Unix()) || entries != float64(want.entries) {
			t.Errorf("%s: %d series, next update in %v s, %v entries; want %+v", issuer, series, next-float64(now.Unix()), entries, want)
		}
	}
	if n := len(p.logged("metric left out: another value has the same labels")); n != 0 {
		t.Errorf("%d metrics were left out", n)
	}
	p.wantEnd()
}

// withSerial is a root that ends then, in PEM.
func withSerial(t *testing.T, serial int64, end time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "counts from 1"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
