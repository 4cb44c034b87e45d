package main

import (
	"crypto/tls"
	"fmt"
	"slices"

	"dragontls/certs"
	"dragontls/config"
	"dragontls/proxy/command"
)

const cureOfUnlisted = "correct the name; one of a module or of a later version may stay"

// judgeDenied finds names in DENY_COMMANDS that refuse nothing, because no command has them.
func judgeDenied(c *config.Config) []certs.Finding {
	unlisted := command.UnlistedNames(c.DenyCommands)
	if len(unlisted) == 0 {
		return nil
	}
	return []certs.Finding{{ID: "unknown_command", Severity: certs.SeverityWarning, Subject: config.Prefix + "DENY_COMMANDS",
		Message: "neither Dragonfly nor Redis has " + listed(unlisted), Cure: cureOfUnlisted}}
}

// judgeRules is judgeDenied for the users file. A reload of that file logs the same findings.
func (s *service) judgeRules() (found []certs.Finding) {
	users := s.store.Snapshot().Users()
	if users == nil {
		return nil
	}
	for _, rule := range users.Rules() {
		if unlisted := command.UnlistedNames(slices.Concat(rule.Allow, rule.Deny)); len(unlisted) > 0 {
			found = append(found, certs.Finding{ID: "unknown_command", Severity: certs.SeverityWarning,
				Subject: fmt.Sprintf("%s:%d", s.c.UsersFile, rule.Line),
				Message: "neither Dragonfly nor Redis has " + listed(unlisted), Cure: cureOfUnlisted})
		}
	}
	return found
}

// judgeRevocation finds that a client certificate which was stolen cannot be shut out.
func (s *service) judgeRevocation() []certs.Finding {
	if s.c.TLSClientAuth == tls.NoClientCert || s.c.TLSCRLFile != "" {
		return nil
	}
	return []certs.Finding{{ID: "no_revocation", Severity: certs.SeverityWarning, Subject: config.Prefix + "TLS_CRL_FILE",
		Message: "is not set: a client certificate that its CA revokes still gets in, until it expires",
		Cure:    "name a file with the CRLs of the client CAs (\"dragontls pki\" keeps one in ca.crl)"}}
}

// keyFiles are those that hold private keys: also a certificate file with its key in it that is not named as a key.
func (s *service) keyFiles() []string {
	files := append(slices.Clone(s.c.TLSKeyFiles), s.c.BackendKeyFile)
	for _, file := range append(slices.Clone(s.c.TLSCertFiles), s.c.BackendCertFile) {
		if certs.HoldsKey(file) {
			files = append(files, file)
		}
	}
	return files
}
