//go:build unix

package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// A deny list refuses what is dangerous and nothing else, and cannot be opened by accident.

func TestModuleListIsAnswered(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode)
		if got := p.cli(t, "", "MODULE", "LIST"); strings.Contains(got, "NOPERM") || strings.TrimSpace(got) != "" {
			t.Errorf("got %q, want the empty list of a server without modules", got)
		}
		for _, args := range []string{"MODULE LOAD /x", "module loadex /x", "Module Unload x"} {
			got := p.cli(t, "", strings.Fields(args)...)
			if want := "NOPERM dragontls: the command MODULE " + strings.ToUpper(strings.Fields(args)[1]); !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q", args, got, want)
			}
		}
		p.wantEnd()
	})
}

func TestDenyCommandsCannotOpenByAccident(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		deny    string
		refused string // of the commands below
		finding string // of check; empty: none
		warning string // at start and in check
	}{
		{"+FLUSHALL", "SHUTDOWN FLUSHALL", "", ""},
		{"+flushall,-replicaof", "SHUTDOWN FLUSHALL", "denied_default_removed", "lets clients use REPLICAOF"},
		{"FLUSHALL", "FLUSHALL", "denied_defaults_dropped", "MIGRATE, MODULE|LOAD, MODULE|LOADEX, MODULE|UNLOAD, SHUTDOWN"},
		{"+SHUTDWON", "SHUTDOWN", "unknown_command", "SHUTDWON (did you mean SHUTDOWN?)"},
		{"-SHUTDWON", "SHUTDOWN", "not_denied_anyway", "SHUTDWON (did you mean SHUTDOWN?)"},
		{"+MY.MODULE", "SHUTDOWN", "unknown_command", "neither Dragonfly nor Redis has MY.MODULE"},
	} {
		t.Run(strings.ReplaceAll(c.deny, ",", " "), func(t *testing.T) {
			t.Parallel()
			p := serving(t, redisServer(t).url(), "DENY_COMMANDS="+c.deny)
			for _, command := range []string{"FLUSHALL", "SHUTDOWN"} {
				if command == "SHUTDOWN" && !strings.Contains(c.refused, command) {
					continue // it would pass
				}
				got := p.cli(t, "", command)
				if denied := strings.Contains(got, "NOPERM dragontls: the command "+command); denied != strings.Contains(c.refused, command) {
					t.Errorf("%s: got %q", command, got)
				}
			}
			said := ""
			for _, line := range append(p.logged("configuration"), p.logged("deployment finding")...) {
				text, err := json.Marshal(line)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(text), "DENY_COMMANDS") {
					said += line["level"].(string) + " " + string(text)
				}
			}
			level := "warn "
			if c.finding == "denied_default_removed" {
				level = "info " // it was asked for by name
			}
			if c.warning == "" && said != "" || c.warning != "" && (!strings.Contains(said, c.warning) || !strings.HasPrefix(said, level)) {
				t.Errorf("got %q at start, want %q", said, c.warning)
			}
			p.wantEnd()

			d := newDeployment(t)
			d.vars["DENY_COMMANDS"] = c.deny
			if c.finding == "" {
				d.wantFound(nil, "--no-backend")
				return
			}
			r := d.wantFound([]string{c.finding}, "--no-backend")
			if len(r.Findings) != 1 || r.Findings[0].Subject != "DRAGONTLS_DENY_COMMANDS" || !strings.Contains(r.Findings[0].Message, c.warning) {
				t.Errorf("got %+v", r.Findings)
			}
		})
	}
}

func TestCheckNamesTheNearestCommandOfAUsersFile(t *testing.T) {
	d := newDeployment(t)
	d.vars["USERS_FILE"] = d.file("users.yaml", "users:\n  - match: [\"cn:a\"]\n    user: a\n    password_file: p\n    deny: [SHUTDWON, \"CONFIG|SETT\", KEYS]\n", 0o644)
	d.file("p", "secret", 0o600)
	r := d.wantFound([]string{"unknown_command"}, "--no-backend")
	if len(r.Findings) != 1 || !strings.HasSuffix(r.Findings[0].Subject, "users.yaml:2") || !strings.Contains(r.Findings[0].Message, "CONFIG|SETT (did you mean CONFIG|SET?), SHUTDWON (did you mean SHUTDOWN?)") {
		t.Errorf("got %+v", r.Findings)
	}
}
