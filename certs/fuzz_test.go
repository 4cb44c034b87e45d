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
		r, infos, err := parseCRLs(reload.Contents{"crl": {Data: data}}, &Options{CRLFile: "crl"}, clients)
		if (err == nil) != (len(infos) > 0) {
			t.Fatalf("%d lists and %v", len(infos), err)
		}
		if err != nil {
			return
		}
		for _, l := range r.lists[string(clients.certs[0].RawSubject)] {
			if !l.signedBy(clients.certs[0]) && string(l.signed.AuthorityKeyId) == string(clients.certs[0].SubjectKeyId) {
				t.Fatal("a list with the CA's name and key identifier counts without its signature")
			}
		}
	})
}
