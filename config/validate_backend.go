package config

import (
	"errors"
	"strings"
)

func (l *loader) checkBackend() {
	c := &l.config
	if c.BackendPasswordFile != "" && !l.faulty["BACKEND_PASSWORD_FILE"] {
		if _, err := readSecret(c.BackendPasswordFile); err != nil {
			l.refuse("BACKEND_PASSWORD_FILE", "a file with a password: "+err.Error(), "")
		}
	}
	for _, f := range c.backendPairFaults() {
		l.refuse(strings.TrimPrefix(f.Variable, Prefix), f.Accepted, f.Cure)
	}
	if l.faulty["BACKEND_URL"] || l.faulty["BACKEND_URL_FILE"] || c.BackendURLFile != "" && !l.readBackendURL() {
		return
	}
	for _, f := range c.backendFaults(c.Backend) {
		l.refuse(strings.TrimPrefix(f.Variable, Prefix), f.Accepted, f.Cure)
	}
}

// readBackendURL sets Backend to what BACKEND_URL_FILE holds. It returns false after it has refused that.
func (l *loader) readBackendURL() bool {
	text, err := readSecret(l.config.BackendURLFile)
	if err != nil {
		l.refuse("BACKEND_URL_FILE", "a file with a URL: "+err.Error(), "")
		return false
	}
	b, err := parseBackend(text)
	if bad, ok := errors.AsType[badValue](err); ok {
		l.refuse("BACKEND_URL_FILE", "content: "+bad.accepted, bad.cure)
		return false
	}
	l.config.Backend = b
	return true
}

// backendPairFaults says which of certificate and key is alone.
func (c *Config) backendPairFaults() (faults Faults) {
	switch {
	case c.BackendCertFile != "" && c.BackendKeyFile == "":
		faults = append(faults, Fault{Variable: Prefix + "BACKEND_CERT_FILE", Accepted: "only with " + Prefix + "BACKEND_KEY_FILE"})
	case c.BackendCertFile == "" && c.BackendKeyFile != "":
		faults = append(faults, Fault{Variable: Prefix + "BACKEND_KEY_FILE", Accepted: "only with " + Prefix + "BACKEND_CERT_FILE"})
	}
	return faults
}

// backendFaults says where b, from BACKEND_URL or its file, and the other
// BACKEND_ variables contradict each other.
func (c *Config) backendFaults(b Backend) (faults Faults) {
	refuse := func(name, accepted, cure string) {
		faults = append(faults, Fault{Variable: Prefix + name, Accepted: accepted, Cure: cure})
	}
	password := ""
	switch {
	case c.BackendPassword != "":
		password = "BACKEND_PASSWORD"
	case c.BackendPasswordFile != "":
		password = "BACKEND_PASSWORD_FILE"
	}
	if password != "" && b.Password != "" {
		refuse(password, "not together with a password in the URL", "keep one of them")
	}
	if b.Username != "" && b.Password == "" && password == "" {
		refuse("BACKEND_URL", "a user only with a password: redis://user:password@host",
			"for a password without a user, redis://:password@host; or set "+Prefix+"BACKEND_PASSWORD or its _FILE twin")
	}
	switch {
	case c.BackendUsername == "":
	case !userForm.MatchString(c.BackendUsername):
		refuse("BACKEND_USERNAME", "printable ASCII without blanks", "")
	case b.Username != "" || b.Password != "":
		refuse("BACKEND_USERNAME", "not together with a user or password in the URL", "keep user and password in one place")
	case password == "":
		refuse("BACKEND_USERNAME", "only with a password", "set "+Prefix+"BACKEND_PASSWORD or its _FILE twin")
	}
	if !b.TLS {
		for _, v := range []struct{ name, value string }{
			{"BACKEND_CA_FILE", c.BackendCAFile},
			{"BACKEND_CERT_FILE", c.BackendCertFile},
			{"BACKEND_KEY_FILE", c.BackendKeyFile},
			{"BACKEND_SERVER_NAME", c.BackendServerName},
		} {
			if v.value != "" {
				refuse(v.name, "only with a rediss:// URL", "")
			}
		}
	}
	return faults
}
