package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

func (l *loader) validate() {
	v := reflect.ValueOf(l.config)
	for _, f := range fields() {
		name := f.Tag.Get("env")
		if l.faulty[name] {
			continue
		}
		l.checkRange(f, v.FieldByIndex(f.Index))
		l.checkForm(f, v.FieldByIndex(f.Index))
	}
	l.checkTwins()
	l.checkTLS()
	l.checkBackend()
	l.checkAdmin()
	l.checkAlerts()
	l.checkDenied()
	l.checkBalancers()
	l.fitMemory() // first: BACKEND_MAX_CONNECTIONS follows what is left of MAX_CONNECTIONS
	l.fitDescriptors()
}

func (l *loader) checkRange(f reflect.StructField, v reflect.Value) {
	if r := rangeOf(f); r != "" {
		if v.Int() < bound(f, "min") || v.Int() > bound(f, "max") {
			l.refuse(f.Tag.Get("env"), r, "")
		}
	}
}

func rangeOf(f reflect.StructField) string {
	if f.Tag.Get("min") == "" {
		return ""
	}
	return f.Tag.Get("min") + " to " + f.Tag.Get("max")
}

// bound reads a min or max tag, which is in the form of the field's own value.
func bound(f reflect.StructField, tag string) int64 {
	v, err := parsers[f.Type](f.Tag.Get(tag))
	if err != nil {
		panic(fmt.Sprintf("config: field %s: tag %s: %v", f.Name, tag, err))
	}
	return reflect.ValueOf(v).Int()
}

func (l *loader) checkForm(f reflect.StructField, v reflect.Value) {
	name := f.Tag.Get("env")
	if words := f.Tag.Get("oneof"); words != "" && !slices.Contains(strings.Split(words, ","), v.String()) {
		l.refuse(name, "one of "+strings.ReplaceAll(words, ",", ", "), "")
		return
	}
	form := f.Tag.Get("form")
	if path, ok := strings.CutPrefix(v.String(), unixScheme); ok && form == "adminaddress" {
		l.checkSocket(name, path)
		return
	}
	switch form {
	case "address", "adminaddress":
		host, port, err := net.SplitHostPort(v.String())
		if v.String() != "" && (err != nil || !validPort(port) || strings.ContainsAny(host, " /@")) {
			accepted := "host:port or :port, an IPv6 address in brackets"
			if form == "adminaddress" {
				accepted += ", or unix:///path"
			}
			l.refuse(name, accepted, "")
		}
	case "file", "secretfile":
		paths, ok := v.Interface().([]string)
		if !ok {
			paths = []string{v.String()}
		}
		for i, path := range paths {
			if err := readable(path); err != nil {
				accepted, cure := "a readable file: "+withoutPath(err).Error(), ""
				if errors.Is(err, os.ErrPermission) {
					accepted += " (" + describe(path) + ")"
					cure = "give the file, and every directory above it, to that uid or a group of it; for a Kubernetes secret, fsGroup in the securityContext of the pod and defaultMode: 0440"
				}
				if len(paths) > 1 {
					accepted = fmt.Sprintf("%s (entry %d)", accepted, i+1)
				}
				l.refuseFile(name, path, accepted, cure)
			}
		}
	}
}

const (
	unixScheme = "unix://"
	// maxSocketPath leaves room for the name under which the socket is made: the path of one has 103 bytes on macOS, 107 on Linux.
	maxSocketPath = 88
)

func (l *loader) checkSocket(name, path string) {
	switch {
	case !filepath.IsAbs(path) || strings.HasSuffix(path, "/"):
		l.refuse(name, "unix:// and an absolute path", "a socket's path is absolute: unix:///run/dragontls/admin.sock")
	case len(path) > maxSocketPath:
		l.refuse(name, fmt.Sprintf("a path of a Unix socket of at most %d bytes", maxSocketPath), "")
	}
}

func readable(path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file, and it is read more than once")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// refuseFile is refuse for a variable that names a file which cannot be read.
func (l *loader) refuseFile(name, path, accepted, cure string) {
	l.refuse(name, accepted, cure)
	l.faults[len(l.faults)-1].File = path
}

func (l *loader) checkTwins() {
	for _, f := range fields() {
		name, twin := f.Tag.Get("env"), f.Tag.Get("twin")
		if twin != "" && l.explicit[name] && l.explicit[twin] {
			l.refuse(name, "not together with "+Prefix+twin, "keep one of them")
		}
	}
}

func (l *loader) checkTLS() {
	c := &l.config
	for _, name := range []string{"TLS_CERT_FILE", "TLS_KEY_FILE"} {
		if !l.explicit[name] {
			l.refuse(name, "required, the path of a PEM file", "\"dragontls pki init\" makes a pair for development")
		}
	}
	if n, m := len(c.TLSCertFiles), len(c.TLSKeyFiles); n != m && n > 0 && m > 0 {
		l.refuse("TLS_KEY_FILE", fmt.Sprintf("as many entries as %sTLS_CERT_FILE: %d, not %d", Prefix, n, m), "")
	}
	for _, name := range []string{"ALLOW", "ALLOW_FILE", "USERS_FILE", "TLS_CRL_FILE"} {
		if value, set := l.values[Prefix+name]; set && value == "" {
			l.refuse(name, "a value", "an empty one would let more clients in than no typing error should; remove the variable to mean that")
		}
	}
	if c.TLSCRLExpired == "warn" && c.TLSCRLFile != "" {
		l.note(NoteCRLExpired, "TLS_CRL_EXPIRED", "is warn: clients get in while a CRL is missing or not in date")
	}
	if o := c.TLSOCSP; o != "off" && o != "fetch" {
		if err := readable(o); err != nil {
			l.refuseFile("TLS_OCSP", o, "off, fetch or a readable file: "+withoutPath(err).Error(), "")
		}
	}
	if !l.faulty["TLS_MIN_VERSION"] && !l.faulty["TLS_MAX_VERSION"] && c.TLSMinVersion > c.TLSMaxVersion {
		l.refuse("TLS_MIN_VERSION", "not above "+Prefix+"TLS_MAX_VERSION", "")
	}
	if !l.faulty["TLS_CLIENT_AUTH"] {
		l.checkClientAuth()
	}
}

func (l *loader) checkClientAuth() {
	c := &l.config
	if c.TLSClientAuth != tls.NoClientCert && !l.explicit["TLS_CLIENT_CA_FILE"] {
		l.refuse("TLS_CLIENT_CA_FILE", "required, the CA bundle that signs client certificates",
			"to serve clients without certificates, say "+Prefix+"TLS_CLIENT_AUTH=none")
	}
	if c.TLSClientAuth != tls.RequireAndVerifyClientCert && c.Allow == nil && c.AllowFile == "" && c.UsersFile == "" {
		l.note(NoteClientAuth, "TLS_CLIENT_AUTH", "is %q: clients without a certificate get in", l.values[Prefix+"TLS_CLIENT_AUTH"])
	}
	for _, name := range []string{"TLS_CRL_FILE", "ALLOW", "ALLOW_FILE", "USERS_FILE"} {
		if c.TLSClientAuth == tls.NoClientCert && l.explicit[name] {
			l.refuse(name, "only where clients show certificates", "remove it, or set "+Prefix+"TLS_CLIENT_AUTH=require")
		}
	}
}

func (l *loader) checkBalancers() {
	for _, network := range l.config.ProxyProtocolFrom {
		if network.Bits() == 0 {
			l.note(NoteProxyFromAll, "PROXY_PROTOCOL_FROM", "is %s: whoever reaches the port can claim any address", network)
		}
	}
}

func (l *loader) checkAdmin() {
	c := &l.config
	if c.AdminTokenFile != "" && !l.faulty["ADMIN_TOKEN_FILE"] {
		if _, err := c.AdminToken(); err != nil {
			l.refuse("ADMIN_TOKEN_FILE", "a file with a token: the file is empty", "")
		}
	}
	if c.AdminListen == c.Listen && !strings.HasSuffix(c.Listen, ":0") && !l.faulty["LISTEN"] {
		l.refuse("ADMIN_LISTEN", "another address than "+Prefix+"LISTEN", "")
	}
	if c.AdminListen == "" || c.AdminTokenFile != "" || l.faulty["ADMIN_LISTEN"] {
		return
	}
	if strings.HasPrefix(c.AdminListen, unixScheme) {
		return
	}
	host, _, _ := net.SplitHostPort(c.AdminListen)
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		l.note(NoteAdminToken, "ADMIN_LISTEN", "is off loopback: /metrics is refused until %sADMIN_TOKEN_FILE names a token", Prefix)
	}
}

func (l *loader) checkAlerts() {
	c := &l.config
	if c.AlertWebhookURL != "" && !isWebURL(string(c.AlertWebhookURL)) {
		l.refuse("ALERT_WEBHOOK_URL", "an http:// or https:// URL", "")
	}
	if c.AlertWebhookURLFile != "" && !l.faulty["ALERT_WEBHOOK_URL_FILE"] {
		if _, err := c.AlertWebhook(); err != nil {
			l.refuse("ALERT_WEBHOOK_URL_FILE", "a file that holds an http:// or https:// URL", "")
		}
	}
}
