package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"dragontls/proxy/command"
)

// embeddedLacks says what the embedded backend is not good for.
const embeddedLacks = "BullMQ, RQ, Sidekiq, rueidis, MONITOR and ACL need a real backend: dev --backend redis://HOST:PORT"

// embedded is miniredis with the few answers that clients ask for when they connect and that it lacks. What else it lacks it
// refuses in words that name the way out.
func embedded() (*miniredis.Miniredis, error) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("start the embedded backend: %w", err)
	}
	s := m.Server() // Close sets it to nil while clients are still served
	err := s.Register("CONFIG", func(c *server.Peer, cmd string, args []string) { c.WriteMapLen(0) })
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("start the embedded backend: %w", err)
	}
	s.SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
		refusal := lacks(cmd, args, s.IsRegisteredCommand(cmd))
		if refusal != "" {
			c.WriteError(refusal)
		}
		return refusal != ""
	})
	return m, nil
}

// embeddedSubs are the subcommands that the embedded backend knows, of commands of which it lacks some that clients use.
var embeddedSubs = map[string][]string{
	"CLIENT": {"SETNAME", "GETNAME"},
	"CONFIG": {"GET"},
	"INFO":   {"CLIENTS", "STATS"},
	// miniredis takes COMMAND DOCS for COMMAND, and redis-cli aborts at that answer where an error makes it use the help
	// it brings along.
	"COMMAND": {},
}

// luaLibraries are those of Redis that its Lua lacks.
var luaLibraries = regexp.MustCompile(`\b(cmsgpack|struct|bit)\.`)

// lacks returns the refusal of a command that the embedded backend lacks, or "". known reports whether miniredis has the
// command. The beginning of each is how Redis itself refuses: libraries do without some commands when they see it.
func lacks(cmd string, args []string, known bool) string {
	if !known {
		if len(command.UnlistedNames([]string{cmd})) > 0 {
			return "" // no backend has it
		}
		return lacking("ERR unknown command `" + cmd + "`")
	}
	if subs, some := embeddedSubs[cmd]; some && len(args) > 0 {
		sub := strings.ToUpper(args[0])
		if !slices.Contains(subs, sub) && len(command.UnlistedNames([]string{cmd + "|" + sub})) == 0 {
			return lacking("ERR unknown subcommand " + quotedWord(sub) + " of " + cmd)
		}
	}
	script := ""
	switch {
	case cmd == "EVAL" && len(args) > 0:
		script = args[0]
	case cmd == "SCRIPT" && len(args) > 1 && strings.EqualFold(args[0], "LOAD"):
		script = args[1]
	}
	if library := luaLibraries.FindStringSubmatch(script); library != nil {
		return lacking("ERR the script uses " + library[1])
	}
	return ""
}

// lacking adds to a refusal why, and the way out.
func lacking(refusal string) string {
	return refusal + ": the embedded backend of dragontls dev lacks it, --backend redis://HOST:PORT names a real one"
}

// quotedWord shows a word of a client, which may be anything.
func quotedWord(word string) string {
	if len(word) > 32 {
		word = word[:32] + "..."
	}
	return fmt.Sprintf("%q", word)
}
