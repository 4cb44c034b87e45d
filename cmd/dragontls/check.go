package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"dragontls/certs"
)

// What a report can result in.
const (
	resultOK       = "ok"
	resultFindings = "findings"
	resultBad      = "bad_configuration"
)

// report is what --json prints.
type report struct {
	Result   string          `json:"result"`
	Checked  []string        `json:"checked"`
	Findings []certs.Finding `json:"findings"` // errors first, notes last; never null
}

// checkOptions are the flags of check.
type checkOptions struct {
	hosts, envFile    string
	asJSON, noBackend bool
}

func (p program) checkCommand() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:     "check [--host NAME[,NAME]] [--json] [--no-backend] [--env-file FILE]",
		GroupID: groupPrepare,
		Short:   "verifies the configuration, its files and the backend, without serving",
		Long: `Verifies the configuration, the files it names and the backend, without serving, and prints a
line for each finding with its cure: error, warning, or a note that asks for nothing. Run it where
serve runs, as the same user.`,
		Annotations: after("Exit codes: 0 nothing found, or notes only, 1 findings, 2 bad configuration or misuse."),
		Args:        noArguments,
		RunE:        func(c *cobra.Command, _ []string) error { return p.check(c, o) },
	}
	c.Flags().StringVar(&o.hosts, "host", "", "`A,B`: names and addresses that clients connect to: the certificates must bear them")
	c.Flags().BoolVar(&o.asJSON, "json", false, `prints {"result", "checked", "findings": [{"id", "severity", "subject", "message", "cure"}]}`)
	c.Flags().BoolVar(&o.noBackend, "no-backend", false, "opens no connection")
	c.Flags().StringVar(&o.envFile, "env-file", "", "`FILE`: reads variables that the environment does not set from FILE, as serve does")
	return c
}

// check verifies what serve would run with.
func (p program) check(c *cobra.Command, o checkOptions) error {
	hosts, err := parseHosts(o.hosts)
	if err != nil {
		return misused(c, "%v", err)
	}
	s, err := unstarted(source{p.env, o.envFile})
	if err != nil {
		if o.asJSON {
			writeReport(p.stdout, report{Result: resultBad, Checked: []string{}, Findings: faultFindings(err)})
			return exitCode(exitConfig)
		}
		return exitCode(configFault(plainFaults{p.stderr}, err))
	}
	r := s.report(hosts, !o.noBackend)
	if o.asJSON {
		writeReport(p.stdout, r)
	} else {
		printReport(p.stdout, r)
	}
	if r.Result != resultOK {
		return exitCode(exitFailed)
	}
	return nil
}

// unstarted is a service that has read and verified all that serve does before it listens.
func unstarted(from source) (*service, error) {
	c, err := configure(from)
	if err != nil {
		return nil, err
	}
	s := &service{c: c, from: from, log: zerolog.Nop()}
	if err := s.openCertificates(); err != nil {
		return nil, err
	}
	return s, s.openProxy()
}

func parseHosts(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	hosts := strings.Split(list, ",")
	for i, host := range hosts {
		hosts[i] = strings.TrimSpace(host)
		_, err := netip.ParseAddr(strings.Trim(hosts[i], "[]"))
		if hosts[i] == "" || err != nil && strings.ContainsAny(hosts[i], ":/@[]* \t") {
			return nil, fmt.Errorf("--host %q: neither a DNS name nor an IP address, without a port", host)
		}
	}
	return hosts, nil
}

func (s *service) report(hosts []string, network bool) report {
	r := report{Result: resultOK, Checked: s.checked(hosts), Findings: noteFindings(s.c.Notes)}
	r.Findings = append(r.Findings, s.lint(hosts)...)
	r.Findings = append(r.Findings, s.judgeRules()...)
	r.Findings = append(r.Findings, certs.LintReload(s.files())...)
	b := s.newBackendCheck()
	if network {
		b.run(context.Background())
		r.Checked = append(r.Checked, b.checked)
	} else {
		b.judgeAddress()
	}
	r.Findings = append(r.Findings, b.found...)
	if slices.ContainsFunc(r.Findings, func(f certs.Finding) bool { return f.Severity != certs.SeverityNote }) {
		r.Result = resultFindings
	}
	slices.SortStableFunc(r.Findings, func(a, b certs.Finding) int { return a.Severity.Compare(b.Severity) })
	return r
}

// lint is what needs neither the network nor file events.
func (s *service) lint(hosts []string) []certs.Finding {
	o := certs.LintOptions{Hosts: hosts, ExpiryWarning: s.c.ExpiryWarning}
	found := certs.Lint(s.store.Snapshot(), o)
	if s.backend != nil {
		found = append(found, certs.LintClient(s.backend, o)...)
	}
	c := &s.c
	found = append(found, judgeDenied(c)...)
	found = append(found, s.judgeRevocation()...)
	found = append(found, certs.LintKeys(s.keyFiles()...)...)
	found = append(found, certs.LintBundles(c.TLSClientCAFile, c.BackendCAFile)...)
	found = append(found, certs.LintTrust(c.TLSClientCAFile, c.TLSCRLFile, c.AllowFile, c.UsersFile, c.BackendCAFile, s.from.envFile)...)
	secrets := []string{c.TLSKeyPasswordFile, c.TLSTicketKeysFile, c.BackendPasswordFile, c.BackendURLFile, c.AdminTokenFile, c.AlertWebhookURLFile}
	if users := s.store.Snapshot().Users(); users != nil {
		secrets = append(secrets, users.PasswordFiles()...)
	}
	found = append(found, certs.LintSecrets(secrets...)...)
	return append(found, certs.LintClock(s.files())...)
}

// files are those that are read again while the proxy runs, because they may be replaced.
func (s *service) files() []string {
	files := s.store.Files()
	if s.backend != nil {
		files = append(files, s.backend.Files()...)
	}
	return files
}

// logFindings logs what check finds, at the level of its severity, but for what needs the network or is logged elsewhere at
// start: the notes of the configuration, files that are mounts, missing file events, and what ends soon.
func (s *service) logFindings() {
	b := s.newBackendCheck()
	b.judgeAddress()
	for _, f := range append(s.lint(nil), b.found...) {
		if strings.Contains(f.ID, "expire") {
			continue
		}
		s.logFinding(f)
	}
}

func (s *service) logFinding(f certs.Finding) {
	s.log.WithLevel(levelOf(f.Severity)).Str("id", f.ID).Str("subject", f.Subject).
		Str("finding", f.Message).Str("cure", f.Cure).Msg("deployment finding")
}

// checked names what a report is about.
func (s *service) checked(hosts []string) []string {
	c := &s.c
	list := []string{"configuration", "server certificate " + strings.Join(c.TLSCertFiles, ", ")}
	if len(hosts) > 0 {
		list = append(list, "names "+strings.Join(hosts, ", "))
	}
	if c.TLSClientCAFile != "" {
		list = append(list, "client CAs "+c.TLSClientCAFile)
	}
	if c.TLSCRLFile != "" {
		list = append(list, "CRLs "+c.TLSCRLFile)
	}
	if c.UsersFile != "" {
		list = append(list, "users "+c.UsersFile)
	}
	return append(list, "files and file events")
}

func writeReport(w io.Writer, r report) { _ = writeJSON(w, r) }

func printReport(w io.Writer, r report) {
	if r.Result == resultOK {
		fmt.Fprintf(w, "ok: %s\n", oneLine(strings.Join(r.Checked, "; ")))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%-7s  %s: %s; %s  [%s]\n", f.Severity, oneLine(f.Subject), oneLine(f.Message), oneLine(f.Cure), f.ID)
	}
}
