package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var commandForm = regexp.MustCompile(`^[A-Z0-9_.][A-Z0-9._-]*(\|[A-Z0-9._-]+)?$`)

const deniedForm = "a comma-separated list of NAME or NAME|SUBCOMMAND, all with + or - in front or none; or the word none"

// defaultDenied returns what is refused unless DENY_COMMANDS says otherwise.
func defaultDenied() []string {
	f, _ := fieldOf("DENY_COMMANDS")
	return strings.Split(f.Tag.Get("envDefault"), ",")
}

// checkDenied makes the list of commands to refuse of what DENY_COMMANDS says. What it says less than the default list is
// noted: a list that was meant to add a command must not open SHUTDOWN by accident.
func (l *loader) checkDenied() {
	c := &l.config
	if l.faulty["DENY_COMMANDS"] || !l.explicit["DENY_COMMANDS"] {
		return
	}
	if len(c.DenyCommands) == 1 && strings.EqualFold(c.DenyCommands[0], "none") {
		c.DenyCommands = nil
		l.note(NoteNothingDenied, "DENY_COMMANDS", "is none: no command is refused")
		return
	}
	entries, ok := l.parseDenied(c.DenyCommands)
	if !ok {
		return
	}
	if entries[0].sign == 0 {
		l.replaceDenied(entries)
	} else {
		l.changeDenied(entries)
	}
}

// deniedEntry is an entry of DENY_COMMANDS: '+', '-' or no sign (0), and the name in upper case.
type deniedEntry struct {
	sign byte
	name string
}

// parseDenied returns false after it has refused a list with entries that cannot be understood.
func (l *loader) parseDenied(list []string) (entries []deniedEntry, ok bool) {
	var faults []string
	for i, text := range list {
		e := deniedEntry{name: strings.ToUpper(text)}
		if e.name[0] == '+' || e.name[0] == '-' {
			e.sign, e.name = e.name[0], e.name[1:]
		}
		switch {
		case e.name == "NONE":
			faults = append(faults, fmt.Sprintf("entry %d: none stands alone, and means that nothing is refused", i+1))
		case !commandForm.MatchString(e.name):
			faults = append(faults, fmt.Sprintf("entry %d is neither", i+1))
		}
		entries = append(entries, e)
	}
	signed := func(e deniedEntry) bool { return e.sign != 0 }
	if slices.ContainsFunc(entries, signed) && slices.ContainsFunc(entries, func(e deniedEntry) bool { return !signed(e) }) {
		faults = append(faults, "names without a sign replace the default list, + and - change it: use one or the other")
	}
	if len(faults) > 0 {
		l.refuse("DENY_COMMANDS", deniedForm, strings.Join(faults, "; "))
		return nil, false
	}
	return entries, true
}

// replaceDenied is for a list without signs.
func (l *loader) replaceDenied(entries []deniedEntry) {
	c := &l.config
	c.DenyCommands = nil
	for _, e := range entries {
		c.DenyCommands = append(c.DenyCommands, e.name)
	}
	var dropped, cure []string
	for _, name := range defaultDenied() {
		if !slices.Contains(c.DenyCommands, name) && !slices.Contains(c.DenyCommands, commandOf(name)) {
			dropped = append(dropped, name)
		}
	}
	if len(dropped) == 0 {
		return
	}
	for _, e := range entries {
		if !slices.Contains(defaultDenied(), e.name) {
			cure = append(cure, "+"+e.name)
		}
	}
	text := "replaces the default list, and no longer refuses " + strings.Join(dropped, ", ")
	if len(cure) > 0 {
		text += "; " + strings.Join(cure, ",") + " would add to the default list"
	}
	l.note(NoteDefaultsDropped, "DENY_COMMANDS", "%s", text)
}

// changeDenied is for a list with signs: its entries change the default list one after the other.
func (l *loader) changeDenied(entries []deniedEntry) {
	denied := defaultDenied()
	var missing []string
	for _, e := range entries {
		if e.sign == '+' {
			denied = append(denied, e.name)
			continue
		}
		before := len(denied)
		denied = slices.DeleteFunc(denied, func(name string) bool { return name == e.name || commandOf(name) == e.name })
		if len(denied) < before {
			continue
		}
		if near := Nearest(e.name, denied); near != "" {
			e.name += " (did you mean " + near + "?)"
		}
		missing = append(missing, e.name)
	}
	if len(missing) > 0 {
		l.note(NoteNotDenied, "DENY_COMMANDS", "removes %s, which the list does not have: it is %s",
			strings.Join(missing, ", "), strings.Join(denied, ","))
	}
	var removed []string
	for _, name := range defaultDenied() {
		if !slices.Contains(denied, name) && !slices.Contains(denied, commandOf(name)) {
			removed = append(removed, name)
		}
	}
	if len(removed) > 0 {
		l.note(NoteRemoved, "DENY_COMMANDS", "lets clients use %s, which the default list refuses", strings.Join(removed, ", "))
	}
	l.config.DenyCommands = distinct(denied)
}

// commandOf returns NAME of NAME|SUBCOMMAND.
func commandOf(name string) string {
	command, _, _ := strings.Cut(name, "|")
	return command
}

// distinct returns the names in their order, each once.
func distinct(names []string) []string {
	var all []string
	for _, name := range names {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}
