package main

import (
	"errors"
	"strings"

	"dragontls/certs"
	"dragontls/config"
)

// noteKinds says what a note of the configuration is as a finding, by the variable that begins it.
var noteKinds = map[string]certs.Finding{
	"MAX_CONNECTIONS": {ID: "descriptor_limit", Severity: certs.SeverityWarning,
		Cure: "raise the limit of open files (ulimit -n, LimitNOFILE=), or set the variable to what is enough"},
	"MAX_HANDSHAKES": {ID: "descriptor_limit", Severity: certs.SeverityWarning,
		Cure: "raise the limit of open files (ulimit -n, LimitNOFILE=), or set the variable to what is enough"},
	"TLS_CLIENT_AUTH": {ID: "client_auth", Severity: certs.SeverityError,
		Cure: "set it to require"},
	"TLS_CRL_EXPIRED": {ID: "crl_not_enforced", Severity: certs.SeverityWarning,
		Cure: "set it to refuse"},
	"ADMIN_LISTEN": {ID: "admin_without_token", Severity: certs.SeverityWarning,
		Cure: "name a file with a token, or listen on 127.0.0.1"},
	"DENY_COMMANDS": {ID: "no_denied_commands", Severity: certs.SeverityWarning,
		Cure: "leave it unset for the default list, or name the commands to refuse"},
}

func noteFindings(notes []string) []certs.Finding {
	found := []certs.Finding{} // never nil: a report has a list
	for _, note := range notes {
		variable, _, _ := strings.Cut(note, " ")
		f, ok := noteKinds[strings.TrimPrefix(variable, config.Prefix)]
		if strings.Contains(note, config.Prefix+"MEMORY_LIMIT is") {
			f = certs.Finding{ID: "memory_limit", Severity: certs.SeverityWarning,
				Cure: "raise " + config.Prefix + "MEMORY_LIMIT or give the container more memory, or set the variable to what is enough"}
		} else if !ok {
			f = certs.Finding{ID: "configuration_note", Severity: certs.SeverityWarning, Cure: "set the variable to what is meant"}
		}
		f.Subject, f.Message = "configuration", note
		if strings.HasPrefix(variable, config.Prefix) {
			f.Subject = variable
			f.Message = strings.TrimSpace(strings.TrimPrefix(note, variable))
		}
		found = append(found, f)
	}
	return found
}

// faultFindings is what a bad configuration is in the form of a report. Its text is what serve prints.
func faultFindings(err error) []certs.Finding {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		var found []certs.Finding
		for _, f := range faults {
			cure := f.Cure
			f.Cure = ""
			found = append(found, certs.Finding{ID: "configuration", Severity: certs.SeverityError, Subject: f.Variable, Message: f.String(), Cure: cure})
		}
		return found
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var found []certs.Finding
		for _, err := range many.Unwrap() {
			found = append(found, faultFindings(err)...)
		}
		return found
	}
	f := certs.Finding{ID: "configuration", Severity: certs.SeverityError, Subject: "configuration", Message: err.Error()}
	if fault, ok := errors.AsType[*certs.Fault](err); ok {
		f.ID, f.Message, f.Cure = fault.Reason, fault.Err.Error(), fault.Cure
		if fault.File != "" {
			f.Subject = fault.File
		}
	}
	return []certs.Finding{f}
}
