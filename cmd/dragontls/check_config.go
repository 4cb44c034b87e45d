package main

import (
	"dragontls/certs"
	"dragontls/config"
)

const cureOfDescriptors = "raise the limit of open files (ulimit -n, LimitNOFILE=), or set the variable to what is enough"

// noteKinds says what a note of the configuration is as a finding.
var noteKinds = map[config.NoteKind]certs.Finding{
	config.NoteDescriptors: {ID: "descriptor_limit", Severity: certs.SeverityNote, Cure: cureOfDescriptors},
	config.NoteMemory: {ID: "memory_limit", Severity: certs.SeverityNote,
		Cure: "raise " + config.Prefix + "MEMORY_LIMIT or give the container more memory, or set the variable to what is enough"},
	config.NoteClientAuth: {ID: "client_auth", Severity: certs.SeverityError, Cure: "set it to require"},
	config.NoteCRLExpired: {ID: "crl_not_enforced", Severity: certs.SeverityWarning, Cure: "set it to refuse"},
	config.NoteAdminToken: {ID: "admin_without_token", Severity: certs.SeverityWarning,
		Cure: "name a file with a token, or listen on 127.0.0.1"},
	config.NoteNothingDenied: {ID: "no_denied_commands", Severity: certs.SeverityWarning,
		Cure: "leave it unset for the default list, or name the commands to refuse"},
	config.NoteDefaultsDropped: {ID: "denied_defaults_dropped", Severity: certs.SeverityWarning,
		Cure: "write +NAME to add to the default list; to drop some of it on purpose, write -NAME for each"},
	config.NoteRemoved: {ID: "denied_default_removed", Severity: certs.SeverityNote,
		Cure: "remove the entry if clients need not use the command"},
	config.NoteProxyFromAll: {ID: "proxy_protocol_from_all", Severity: certs.SeverityWarning, Cure: "name the networks of the load balancers only"},
	config.NoteEnvFileMode:  {ID: "env_file_mode", Severity: certs.SeverityWarning, Cure: "chmod 0600 the file, and give it to the user that dragontls runs as"},
	config.NoteEnvFileOverridden: {ID: "env_file_overridden", Severity: certs.SeverityNote,
		Cure: "remove the variable from the file, or from the environment to be able to change it without a restart"},
	config.NoteEnvFileIgnored: {ID: "env_file_ignored", Severity: certs.SeverityNote, Cure: "remove the lines, or set these variables in the environment"},
	config.NoteNotDenied: {ID: "not_denied_anyway", Severity: certs.SeverityWarning,
		Cure: "correct the name, or remove the entry"},
}

func noteFindings(notes []config.Note) []certs.Finding {
	found := []certs.Finding{} // never nil: a report has a list
	for _, note := range notes {
		f := noteKinds[note.Kind]
		f.Subject, f.Message = note.Variable, note.Text
		if f.Subject == "" {
			f.Subject = "configuration"
		}
		found = append(found, f)
	}
	return found
}
