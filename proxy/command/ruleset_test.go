package command

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func newRules(t testing.TB, o RuleOptions) *Rules {
	t.Helper()
	r, err := NewRules(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCatalogueReadsBothSources(t *testing.T) {
	c := theCatalogue()
	for full, want := range map[string][2]string{ // denied by, allowed by
		"ACL": {"connection,slow", "-"}, "ACL|SETUSER": {"admin,dangerous,slow", "admin,dangerous,slow"}, "ACL|WHOAMI": {"slow", "slow"},
		"ACL|NEW": {"connection,slow", "-"}, "APPEND": {"fast,string,write", "fast,string,write"},
		"BF.ADD": {"bloom", "bloom"}, "JSON.GET": {"json", "json"}, "CF.ADD": {"cuckoo_filter,slow,write", "cuckoo_filter,slow,write"}, // Dragonfly alone
		"CLIENT": {"connection,slow", "slow"}, "CLIENT|ID": {"connection,slow", "connection,slow"}, "CLIENT|NEW": {"connection,slow", "slow"},
		"CLIENT|KILL":   {"admin,connection,dangerous,slow", "connection,slow"},
		"CLUSTER|RESET": {"admin,dangerous,slow", "slow"}, "FUNCTION|LOAD": {"scripting,slow,write", "slow"}, "XGROUP|CREATE": {"slow,stream,write", "slow"},
		"MEMORY|USAGE": {"read,slow", "read,slow"}, "MEMORY|PURGE": {"read,slow", "slow"},
		"BZPOPMAX":  {"blocking,fast,slow,sortedset,write", "blocking,sortedset,write"},
		"RANDOMKEY": {"keyspace,read,slow", "keyspace,read,slow"}, "GEOSEARCHSTORE": {"geo,slow,write", "geo,slow,write"}, // Redis alone
		"OBJECT": {"slow", "slow"}, "OBJECT|FREQ": {"keyspace,read,slow", "keyspace,read,slow"}, "PFADD": {"fast,hyperloglog,write", "fast,hyperloglog,write"},
	} {
		name, sub, _ := strings.Cut(full, "|")
		got := c.of(name, sub)
		if got != (marks{c.set(want[0]), c.set(want[1])}) || got.any == 0 {
			t.Errorf("%s: got %b, want %v", full, got, want)
		}
	}
	seen := map[string]bool{}
	for _, name := range c.names {
		if seen[name] || name != strings.ToUpper(name) || len(name) > maxName || c.rows[name].any == 0 {
			t.Errorf("%q: twice, not in upper case, too long or without category", name)
		}
		seen[name] = true
	}
	if len(c.names) < 300 || len(c.bits) != 29 {
		t.Errorf("%d commands, %d categories", len(c.names), len(c.bits))
	}
	for name := range c.rows {
		if !seen[name] {
			t.Errorf("subcommands of %q, which is none", name)
		}
	}
}

// Every category of either server has a name here, even one without a command.
func TestEveryCategoryIsKnown(t *testing.T) {
	// From ACL CAT of Dragonfly v1.40.1. Those of Redis are a subset, apart from hyperloglog.
	for name := range strings.FieldsSeq("keyspace read write set sortedset list hash string bitmap hyperlog hyperloglog geo stream pubsub admin fast slow blocking " +
		"dangerous connection transaction scripting cuckoo_filter topk cms bloom ft_search throttle json all") {
		if _, err := NewRules(RuleOptions{Deny: []string{"@" + name}}); err != nil {
			t.Errorf("@%s: %v", name, err)
		}
	}
}

func TestRulesNameTheirFaults(t *testing.T) {
	_, err := NewRules(RuleOptions{
		Allow: []string{"GET", "@raed", "", "CONFIG|", "CONFIG GET", "+GET", "A|B|C", "@", strings.Repeat("x", 65)},
		Deny:  []string{"@dangeruos", "|GET", "get", "@FAST", "@All", "my.module"},
	})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		`allow "@raed": no such category` + "\ndid you mean @read?", `allow "": want NAME, NAME|SUBCOMMAND or @category`, `allow "CONFIG|": want`,
		`allow "CONFIG GET": a name is printable`, `allow "+GET": this is a rule of an ACL user`, `allow "A|B|C": a subcommand has none`,
		`allow "@": no such category`, "a name has at most 64 bytes", `deny "@dangeruos": no such category` + "\ndid you mean @dangerous?", `deny "|GET": want`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	for _, good := range []string{"get", "@FAST", "@All", "my.module", `allow "GET"`} {
		if strings.Contains(err.Error(), `"`+good+`"`) {
			t.Errorf("%q is called a fault", good)
		}
	}
}

func TestUnlistedNamesAreNamedWithTheNearest(t *testing.T) {
	got := UnlistedNames([]string{"get", "gte", "x.y|z", "@raed", "SHUTDWON", "shutdonw", "MODULE|LOAD", "MODULE|LAOD", "moduel|load", "CONFIG|SETT", "CLIENT|MIGRATE", "GET|x", "Q", ""})
	want := []Unlisted{{"GTE", "GET"}, {"X.Y|Z", ""}, {"SHUTDWON", "SHUTDOWN"}, {"SHUTDONW", "SHUTDOWN"}, {"MODULE|LAOD", "MODULE|LOAD"},
		{"MODUEL|LOAD", "MODULE|LOAD"}, {"CONFIG|SETT", "CONFIG|SET"}, {"Q", ""}}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if none := newRules(t, RuleOptions{DryRun: true}); none != nil {
		t.Error("rules without an entry")
	}
}

// columns returns the categories in each source. A subcommand without its own has those of its command.
func columns(full string) (sources [][]string) {
	name, _, _ := strings.Cut(full, "|")
	for column := range 2 {
		for _, row := range []string{full, name} {
			_, line, _ := strings.Cut("\n"+commandsText, "\n"+row+" ")
			line, _, _ = strings.Cut(line, "\n")
			if fields := strings.Fields(line); len(fields) == 3 && fields[column] != "-" {
				sources = append(sources, strings.Split(fields[column], ","))
				break
			}
		}
	}
	return sources
}

// expand reads a list in the slow, obvious way, and returns every command and subcommand that it names. A command is in a
// category if one source says so or, with every set, if all sources do that give it any category.
func expand(list, universe []string, every bool) map[string]bool {
	set := map[string]bool{}
	for _, e := range list {
		for _, full := range universe {
			name, sub, _ := strings.Cut(full, "|")
			switch {
			case e == "@all":
				set[full] = true
			case e[0] == '@':
				sources := columns(full)
				in := 0
				for _, of := range sources {
					if slices.Contains(of, e[1:]) {
						in++
					}
				}
				if in > 0 && (!every || in == len(sources)) {
					set[full] = true
				}
			case strings.EqualFold(e, name), strings.EqualFold(e, name+"|"+sub):
				set[full] = true
			}
		}
	}
	return set
}

func TestRulesDecideAsTheirListsRead(t *testing.T) {
	c := theCatalogue()
	table := newTable(t)
	universe := []string{"NOSUCH", "MY.MODULE", "MY.MODULE|ADD", "MY.MODULE|DEL", "ACL|NEW", "CONFIG|GET", "CONFIG|SET", "CLIENT|KILL", "CLIENT|ID", "HELLO|3", "RESET|X"}
	universe = append(universe, c.names...)
	for name, r := range c.rows {
		for sub := range r.subs {
			universe = append(universe, name+"|"+sub)
		}
	}
	choices := []string{"@all", "my.module", "My.Module|add", "acl|setuser", "ACL|NEW", "config|get", "CONFIG|SET", "client|kill", "auth", "HELLO", "reset", "QUIT", "hello|3"}
	for category := range c.bits {
		if category != "hyperloglog" {
			choices = append(choices, "@"+category, "@"+category)
		}
	}
	choices = append(choices, c.names...)
	seed := rand.Uint64() % 1e9
	if v := os.Getenv("TEST_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	g := rand.New(rand.NewPCG(seed, 3))
	list := func() (l []string) {
		for range g.IntN(5) {
			l = append(l, choices[g.IntN(len(choices))])
		}
		return l
	}
	for range 60 {
		o := RuleOptions{Allow: list(), Deny: list()}
		r := newRules(t, o)
		if r == nil {
			continue
		}
		allow, deny := expand(o.Allow, universe, true), expand(o.Deny, universe, false)
		plain := slices.DeleteFunc(slices.Clone(o.Deny), func(e string) bool { return e[0] == '@' })
		byName := expand(plain, universe, false)
		for _, full := range universe {
			name, sub, _ := strings.Cut(full, "|")
			want := deny[full] || len(o.Allow) > 0 && !allow[full]
			if slices.Contains([]string{"AUTH", "HELLO", "QUIT", "RESET"}, name) {
				want = byName[full]
			}
			cmd, _, _ := table.Lookup([]byte(name))
			if got := r.Judge(cmd, []byte(strings.ToLower(name)), []byte(strings.ToLower(sub))) != nil; got != want {
				t.Fatalf("seed %d, %+v: %s refused: %v, want %v", seed, o, full, got, want)
			}
		}
	}
}

func newTable(t testing.TB, deny ...string) *Table {
	t.Helper()
	table, err := NewTable(deny)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestRulesAllocateNothing(t *testing.T) {
	table := newTable(t)
	r := newRules(t, RuleOptions{Allow: []string{"@read", "CONFIG|GET", "MY.MODULE"}, Deny: []string{"KEYS", "ACL|SETUSER"}})
	for _, c := range [][2]string{{"get", ""}, {"SET", ""}, {"config", "get"}, {"CONFIG", "set"}, {"nosuch", "x"}, {"my.module", "y"}, {strings.Repeat("x", 100), ""}} {
		name, sub := []byte(c[0]), []byte(c[1])
		if n := testing.AllocsPerRun(100, func() {
			cmd, rest, _ := table.Lookup(name)
			if len(rest) == 0 {
				rest = sub
			}
			r.Judge(cmd, name, rest)
		}); n != 0 {
			t.Errorf("%q: %v allocations", c, n)
		}
	}
}

func BenchmarkRules(b *testing.B) {
	table := newTable(b)
	r := newRules(b, RuleOptions{Allow: []string{"@read", "CONFIG|GET"}, Deny: []string{"KEYS"}})
	for _, c := range []string{"GET", "CONFIG"} {
		cmd, _, _ := table.Lookup([]byte(c))
		b.Run(c, func(b *testing.B) {
			b.ReportAllocs()
			name, sub := []byte(c), []byte("GET")
			for b.Loop() {
				r.Judge(cmd, name, sub)
			}
		})
	}
}
