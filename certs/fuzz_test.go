package certs

import (
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/certs/reload"
)

// FuzzCRLFile: whatever the file holds, it is refused or understood, and never lets more in than the good one.
func FuzzCRLFile(f *testing.F) {
	ca, err := pki.NewCA("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	good, err := ca.CRL(pki.CRLOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(der(good))
	f.Add(append(der(good), der(good)...))
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	clients, err := parseBundle(reload.Contents{"ca": {Data: ca.PEM()}}, "ca", RoleClientCA, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, err := readCRLs("crl", data)
		if err == nil && len(lists) == 0 {
			t.Fatal("no list and no fault")
		}
		var proven []*crl
		for _, l := range lists { // where others are faulty, these may still take trust away
			if p, err := l.provenBy(clients); err == nil {
				proven = append(proven, p)
			}
		}
		r, infos := newRevocation(proven, true, clients)
		if len(infos) != len(proven) {
			t.Fatalf("%d lists, of which %d are described", len(proven), len(infos))
		}
		for _, l := range r.lists[string(clients.certs[0].RawSubject)] {
			if !l.signedBy(clients.certs[0]) && string(l.signed.AuthorityKeyId) == string(clients.certs[0].SubjectKeyId) {
				t.Fatal("a list with the CA's name and key identifier counts without its signature")
			}
		}
	})
}
