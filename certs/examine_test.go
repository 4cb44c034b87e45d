package certs

import (
	"slices"
	"testing"
)

func TestExamineFindsFaultsOfFilesWhateverIsMissing(t *testing.T) {
	f := newFixture(t)
	f.write("damaged.crt", []byte("x"))
	f.write("allow", []byte("cm:x\n"))
	f.write("users.yaml", []byte("users: [\n"))
	f.write("ca.crl", []byte("x"))
	f.write("tickets", []byte("short"))
	files := Login{AllowFile: f.path("allow"), UsersFile: f.path("users.yaml")}
	if err := Examine(f.opts); err != nil {
		t.Errorf("good files: %v", err)
	}
	for name, c := range map[string]struct {
		opts Options
		want []string
	}{
		"nothing": {Options{}, nil},
		"no pair": {Options{ClientCAFile: f.path("damaged.crt"), Login: files, TicketKeysFile: f.path("tickets")},
			[]string{"damaged.crt parse", "allow allow", "users.yaml users", "tickets ticket_keys"}},
		"no CA":                 {Options{CRLFile: f.path("ca.crl"), Login: files}, []string{"ca.crl parse", "allow allow", "users.yaml users"}},
		"a key too few":         {Options{CertFiles: []string{f.path("server.crt"), f.path("damaged.crt")}, KeyFiles: f.opts.KeyFiles}, []string{"damaged.crt parse"}},
		"a certificate too few": {Options{KeyFiles: []string{f.path("missing.key")}}, []string{"missing.key unreadable"}},
		"a CRL of another key":  {Options{ClientCAFile: f.path("ca.crt"), CRLFile: f.path("forged.crl")}, []string{"forged.crl crl"}},
	} {
		f.write("forged.crl", f.forged(f.ca, "root"))
		if got := reasons(Examine(c.opts)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
