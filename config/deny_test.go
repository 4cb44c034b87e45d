package config

import (
	"slices"
	"strings"
	"testing"
)

// changed returns the default list without some entries and with others behind it.
func changed(without string, more ...string) []string {
	list := slices.DeleteFunc(defaultDenied(), func(name string) bool { return slices.Contains(strings.Fields(without), name) })
	return append(list, more...)
}

func TestDenyCommandsWithSignsChangesTheDefaultList(t *testing.T) {
	for _, test := range []struct {
		value string
		want  []string
		kinds []NoteKind
		text  string // in the notes
	}{
		{"+FLUSHALL", changed("", "FLUSHALL"), nil, ""},
		{"+flushall,+config|set", changed("", "FLUSHALL", "CONFIG|SET"), nil, ""},
		{"+SHUTDOWN", changed(""), nil, ""},
		{"-migrate", changed("MIGRATE"), []NoteKind{NoteRemoved}, "lets clients use MIGRATE, which the default list refuses"},
		{"-MODULE", changed("MODULE|LOAD MODULE|LOADEX MODULE|UNLOAD"), []NoteKind{NoteRemoved}, "MODULE|LOAD, MODULE|LOADEX, MODULE|UNLOAD"},
		{"-MODULE|LOAD", changed("MODULE|LOAD"), []NoteKind{NoteRemoved}, "use MODULE|LOAD, which"},
		{"-MODULE,+MODULE", changed("MODULE|LOAD MODULE|LOADEX MODULE|UNLOAD", "MODULE"), nil, ""},
		{"-SHUTDWON", changed(""), []NoteKind{NoteNotDenied}, "removes SHUTDWON (did you mean SHUTDOWN?), which the list does not have"},
		{"+KEYS,-KEYS", changed(""), nil, ""},
	} {
		c := mustLoad(t, "DENY_COMMANDS="+test.value)
		checkDenial(t, test.value, c, test.want, test.kinds, test.text)
	}
}

func TestDenyCommandsWithoutSignsSaysWhichDefaultsItDrops(t *testing.T) {
	all := strings.Join(defaultDenied(), ",")
	for _, test := range []struct {
		value string
		want  []string
		kinds []NoteKind
		text  string
	}{
		{"FLUSHALL", []string{"FLUSHALL"}, []NoteKind{NoteDefaultsDropped},
			"no longer refuses " + strings.Join(defaultDenied(), ", ") + "; +FLUSHALL would add to the default list"},
		{all, changed(""), nil, ""},
		{all + ",FLUSHALL", changed("", "FLUSHALL"), nil, ""},
		{strings.ReplaceAll(all, ",SHUTDOWN", ""), changed("SHUTDOWN"), []NoteKind{NoteDefaultsDropped}, "no longer refuses SHUTDOWN"},
		// The default list of former versions.
		{"SYNC,PSYNC,REPLCONF,DFLY,DFLYCLUSTER,DFLYMIGRATE,REPLICAOF,SLAVEOF,ADDREPLICAOF,REPLTAKEOVER,FAILOVER,MIGRATE,MODULE,SHUTDOWN",
			append(changed("MODULE|LOAD MODULE|LOADEX MODULE|UNLOAD SHUTDOWN"), "MODULE", "SHUTDOWN"), nil, ""},
	} {
		c := mustLoad(t, "DENY_COMMANDS="+test.value)
		checkDenial(t, test.value, c, test.want, test.kinds, test.text)
	}
}

func checkDenial(t *testing.T, value string, c Config, want []string, kinds []NoteKind, text string) {
	t.Helper()
	var got []NoteKind
	var texts []string
	for _, n := range c.Notes {
		got, texts = append(got, n.Kind), append(texts, n.String())
		if n.Variable != "DRAGONTLS_DENY_COMMANDS" {
			t.Errorf("%s: got a note about %q", value, n.Variable)
		}
	}
	if !slices.Equal(c.DenyCommands, want) || !slices.Equal(got, kinds) || !strings.Contains(strings.Join(texts, "\n"), text) {
		t.Errorf("%s: got %q and notes %q\nwant %q, %v and %q", value, c.DenyCommands, texts, want, kinds, text)
	}
}

func TestDenyCommandsThatCannotBeMeant(t *testing.T) {
	for value, want := range map[string]string{
		"+FLUSHALL,KEYS":   "use one or the other",
		"KEYS,-SHUTDOWN":   "use one or the other",
		"none,KEYS":        "entry 1: none stands alone",
		"+none":            "entry 1: none stands alone",
		"KEYS,+,FLUSH ALL": "entry 2 is neither; entry 3 is neither",
		"--KEYS":           "entry 1 is neither",
		"+CONFIG|":         "entry 1 is neither",
		"A|B|C":            "entry 1 is neither",
	} {
		faults := faultsOf(t, "DENY_COMMANDS="+value)
		if len(faults) != 1 || faults[0].Variable != "DRAGONTLS_DENY_COMMANDS" || !strings.Contains(faults[0].Cure, want) {
			t.Errorf("%s: got %v, want %q", value, faults, want)
		}
	}
}
