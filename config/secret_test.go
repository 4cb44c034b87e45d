package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Every variable in turn holds the secret, in shapes that have leaked elsewhere.
func TestNoFaultShowsASecret(t *testing.T) {
	const secret = "hunter2pass"
	shapes := []string{
		secret, "redis://" + secret + "@h", "redis://u:" + secret + "@h/0", "redis://u:" + secret + "@h:x", "redis://:" + secret,
		"redis:/u:" + secret + "@h", "redis://u:" + secret + "%zz@h", "redis://u:a/" + secret + "@h", "redis://u:a#" + secret + "@h",
		"redis://u:a?" + secret + "@h", "http://u:" + secret + "@h", "redis://h/" + secret, "redis://h?password=" + secret, "redis://" + secret + " x@h",
		"redis://\r\n" + secret + ":p@h", "unix://" + secret + "@host/x", "\n" + secret, secret + "\x00",
	}
	file := filepath.Join(t.TempDir(), "secret")
	for _, name := range []string{"BACKEND_URL", "BACKEND_PASSWORD", "BACKEND_PASSWORD_FILE", "BACKEND_URL_FILE", "ADMIN_TOKEN_FILE", "TLS_TICKET_KEYS_FILE", "BACKEND_PASSWROD", "TOKEN"} {
		for _, shape := range shapes {
			// LOG_LEVEL makes sure that there is a fault.
			got := faultsOf(t, name+"="+shape, "LOG_LEVEL=x", "BACKEND_USERNAME=a b").Error()
			if strings.Contains(got, secret) {
				t.Errorf("%s=%q shows the secret:\n%s", name, shape, got)
			}
			for _, twin := range []string{"BACKEND_URL_FILE", "BACKEND_PASSWORD_FILE"} {
				got := faultsOf(t, twin+"="+write(t, file, shape), "LOG_LEVEL=x", "BACKEND_USERNAME=a b").Error()
				if strings.Contains(got, secret) {
					t.Errorf("%s with %q shows the secret:\n%s", twin, shape, got)
				}
			}
		}
	}
	key := "-----BEGIN PRIVATE KEY-----\n" + secret
	if got := faultsOf(t, "TLS_KEY_FILE="+key, "BACKEND_KEY_FILE="+key).Error(); strings.Contains(got, secret) {
		t.Errorf("a key in place of its file is shown:\n%s", got)
	}
}

func TestPrintingAConfigShowsNoSecret(t *testing.T) {
	for _, c := range []Config{
		mustLoad(t, "BACKEND_URL=redis://u:hunter2@h"),
		mustLoad(t, "BACKEND_PASSWORD=hunter2"),
	} {
		encoded, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{fmt.Sprintf("%v %+v %#v", c, c, c) + fmt.Sprintf("%[1]q %[1]x", any(c)), string(encoded)} {
			if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
				t.Errorf("secret shown: %s", text)
			}
		}
	}
}
