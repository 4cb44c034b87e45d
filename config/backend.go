package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// Backend is a parsed BACKEND_URL.
type Backend struct {
	Network  string // "tcp" or "unix"
	Address  string // host:port, or the path of the socket
	TLS      bool   // rediss://
	Host     string // host without port, the name to verify; empty for unix
	Username string // from the URL; BackendCredentials knows the whole truth
	Password Secret
}

const backendForms = "redis://[[user]:password@]host[:port], rediss://... (TLS) or unix:///path, without a database, query or fragment"

var userForm = regexp.MustCompile(`^[!-~]+$`)

// parseBackend never says anything of the URL in its error: where one is
// malformed, no part of it is known not to be the password.
func parseBackend(s string) (Backend, error) {
	refuse := func(cure string) (Backend, error) { return Backend{}, badValue{backendForms, cure} }
	u, err := url.Parse(s)
	if err != nil {
		return refuse("percent-encode what is special in user and password, or use BACKEND_USERNAME and BACKEND_PASSWORD")
	}
	if u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return refuse("percent-encode ? as %3F and # as %23 in the password; a query is not understood")
	}
	b := Backend{Network: "tcp", TLS: u.Scheme == "rediss", Host: u.Hostname()}
	switch u.Scheme {
	case "unix":
		if b.Host != "" || len(u.Path) < 2 {
			return refuse("a socket's path is absolute: unix:///run/dragonfly.sock")
		}
		b.Network, b.Address = "unix", u.Path
	case "redis", "rediss":
		if b.Host == "" {
			return refuse("name the host")
		}
		if u.Path != "" && u.Path != "/" {
			return refuse("remove the database path; clients SELECT for themselves (a / in the password is %2F)")
		}
		port := u.Port()
		if port == "" {
			port = "6379"
		}
		if !validPort(port) || port == "0" {
			return refuse("the port is 1 to 65535")
		}
		b.Address = net.JoinHostPort(b.Host, port)
	default:
		return refuse("begin with redis://, rediss:// or unix://")
	}
	if u.User != nil {
		password, _ := u.User.Password()
		b.Username, b.Password = u.User.Username(), Secret(password)
		if b.Username != "" && !userForm.MatchString(b.Username) {
			return refuse("a user name is printable ASCII without blanks")
		}
	}
	return b, nil
}

// BackendTarget is where the backend is. It reads BACKEND_URL_FILE again, if set.
func (c *Config) BackendTarget() (Backend, error) {
	if c.BackendURLFile == "" {
		return c.Backend, nil
	}
	text, err := readSecret(c.BackendURLFile)
	if err != nil {
		return Backend{}, fmt.Errorf("%sBACKEND_URL_FILE: %w", Prefix, err)
	}
	b, err := parseBackend(text)
	if err != nil {
		return Backend{}, fmt.Errorf("%sBACKEND_URL_FILE: content: %w", Prefix, err)
	}
	if faults := c.backendFaults(b); len(faults) > 0 {
		return Backend{}, faults
	}
	return b, nil
}

// BackendCredentials are what dragontls authenticates with. Both are empty where
// clients authenticate themselves; the user is empty for the backend's default
// user. It reads BACKEND_PASSWORD_FILE and BACKEND_URL_FILE again, if set.
func (c *Config) BackendCredentials() (user, password string, err error) {
	b, err := c.BackendTarget()
	if err != nil {
		return "", "", err
	}
	user, password = b.Username, string(b.Password)
	if c.BackendUsername != "" {
		user = c.BackendUsername
	}
	if c.BackendPassword != "" {
		password = string(c.BackendPassword)
	}
	if c.BackendPasswordFile != "" {
		if password, err = readSecret(c.BackendPasswordFile); err != nil {
			return "", "", fmt.Errorf("%sBACKEND_PASSWORD_FILE: %w", Prefix, err)
		}
	}
	return user, password, nil
}

// AdminToken reads ADMIN_TOKEN_FILE. It is empty, without an error, when the
// variable is not set; an empty file is an error.
func (c *Config) AdminToken() (string, error) {
	if c.AdminTokenFile == "" {
		return "", nil
	}
	token, err := readSecret(c.AdminTokenFile)
	if err != nil {
		return "", fmt.Errorf("%sADMIN_TOKEN_FILE: %w", Prefix, err)
	}
	return token, nil
}

// AlertWebhook returns ALERT_WEBHOOK_URL, or reads the file of its twin. It is
// empty, without an error, when neither is set.
func (c *Config) AlertWebhook() (string, error) {
	if c.AlertWebhookURLFile == "" {
		return string(c.AlertWebhookURL), nil
	}
	text, err := readSecret(c.AlertWebhookURLFile)
	if err == nil && !isWebURL(text) {
		err = errors.New("it holds no http:// or https:// URL")
	}
	if err != nil {
		return "", fmt.Errorf("%sALERT_WEBHOOK_URL_FILE: %w", Prefix, err)
	}
	return text, nil
}

func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.Fragment == ""
}

// readSecret returns the content without one trailing line end. Its error does
// not name the file: people set a _FILE variable to the secret itself.
func readSecret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", withoutPath(err)
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if s == "" {
		return "", errors.New("the file is empty")
	}
	return s, nil
}

func withoutPath(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return err
}
