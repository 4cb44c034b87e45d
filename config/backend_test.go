package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestBackendURL(t *testing.T) {
	for text, want := range map[string]Backend{
		"redis://db":                     {Network: "tcp", Address: "db:6379", Host: "db"},
		"redis://db:7000/":               {Network: "tcp", Address: "db:7000", Host: "db"},
		"rediss://[::1]:7000":            {Network: "tcp", Address: "[::1]:7000", Host: "::1", TLS: true},
		"redis://u:p%40%2F@db":           {Network: "tcp", Address: "db:6379", Host: "db", Username: "u", Password: "p@/"},
		"redis://:p@db":                  {Network: "tcp", Address: "db:6379", Host: "db", Password: "p"},
		"unix:///run/dragonfly.sock":     {Network: "unix", Address: "/run/dragonfly.sock"},
		"unix://u:p@/run/dragonfly.sock": {Network: "unix", Address: "/run/dragonfly.sock", Username: "u", Password: "p"},
	} {
		if got, err := parseBackend(text); got != want || err != nil {
			t.Errorf("%s: got %#v, %v, want %#v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "db:6379", "//db", "redis:db", "redis://", "redis://:6379", "redis://db:0", "redis://db:66000", "redis://db/0", "redis://db/x",
		"redis://db?db=1", "redis://db?", "redis://db#1", "http://db", "unix://run/x", "unix:///", "unix:x", "redis://a%0db:p@db", "redis://%C3%A4:p@db",
	} {
		if got, err := parseBackend(text); err == nil {
			t.Errorf("%s: got %+v, want a fault", text, got)
		}
	}
}

func TestURLUserNeedsAPasswordFromSomewhere(t *testing.T) {
	if got := faultsOf(t, "BACKEND_URL=redis://app@db").Error(); !strings.Contains(got, "a user only with a password") {
		t.Errorf("got %s", got)
	}
	c := mustLoad(t, "BACKEND_URL=redis://app@db", "BACKEND_PASSWORD=p")
	if user, password, err := c.BackendCredentials(); user != "app" || password != "p" || err != nil {
		t.Errorf("got %q, %q, %v", user, password, err)
	}
}

func TestTwinsAreReadAgainAtEveryUse(t *testing.T) {
	dir := t.TempDir()
	url := write(t, filepath.Join(dir, "url"), "redis://one\r\n")
	password := write(t, filepath.Join(dir, "password"), "first\n\n")
	c := mustLoad(t, "BACKEND_URL_FILE="+url, "BACKEND_USERNAME=app", "BACKEND_PASSWORD_FILE="+password)
	if c.Backend.Address != "one:6379" {
		t.Errorf("got %q, want one:6379", c.Backend.Address)
	}
	if user, pass, err := c.BackendCredentials(); user != "app" || pass != "first\n" || err != nil {
		t.Errorf("got %q, %q, %v: want one line end trimmed", user, pass, err)
	}
	write(t, url, "redis://two")
	write(t, password, "second")
	if b, err := c.BackendTarget(); b.Address != "two:6379" || err != nil {
		t.Errorf("got %q, %v, want two:6379", b.Address, err)
	}
	if _, pass, err := c.BackendCredentials(); pass != "second" || err != nil {
		t.Errorf("got %q, %v, want second", pass, err)
	}
	write(t, url, "redis://u:hunter2@two") // now there are two passwords
	if _, _, err := c.BackendCredentials(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want a fault without the secret", err)
	}
	write(t, url, "redis://two")
	write(t, password, "")
	if _, _, err := c.BackendCredentials(); err == nil {
		t.Error("an empty password file is no error")
	}
}

func TestCredentialsAreEmptyWhereClientsAuthenticate(t *testing.T) {
	c := mustLoad(t)
	if user, password, err := c.BackendCredentials(); user != "" || password != "" || err != nil {
		t.Errorf("got %q, %q, %v", user, password, err)
	}
}

func TestAdminTokenIsReadAgain(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "token"), "one\n")
	c := mustLoad(t, "ADMIN_TOKEN_FILE="+file)
	if got, err := c.AdminToken(); got != "one" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	write(t, file, "two")
	if got, err := c.AdminToken(); got != "two" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
