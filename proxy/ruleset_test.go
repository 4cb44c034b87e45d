package proxy

import (
	"math/rand/v2"
	"slices"
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

// Rows as COMMAND of Dragonfly v1.40.1 and, where marked, of Redis 7.0.15 gives them.
func TestCatalogueHasTheCategoriesOfTheBackends(t *testing.T) {
	c := commandCatalogue()
	for full, want := range map[string]string{
		"ACL": "connection", "ACL|SETUSER": "admin,dangerous,slow", "ACL|WHOAMI": "slow", "ACL|NEW": "connection",
		"APPEND": "fast,string,write", "AUTH": "connection,fast", "BF.ADD": "bloom", "CF.ADD": "cuckoo_filter,slow,write",
		"CLIENT": "connection,slow", "CLIENT|KILL": "connection,slow", "CONFIG": "admin,dangerous,slow",
		"BZPOPMAX": "blocking,slow,sortedset,write", "HGETALL": "fast,hash,read", "PFADD": "fast,hyperloglog,write",
		"RANDOMKEY":      "keyspace,read,slow",                                                                         // Redis: Dragonfly gives none
		"GEOSEARCHSTORE": "geo,slow,write", "MIGRATE": "dangerous,keyspace,slow,write", "OBJECT": "keyspace,read,slow", // Redis
		"JSON.GET": "json", "EVAL": "scripting,slow", "FLUSHALL": "dangerous,keyspace,slow,write", "KEYS": "dangerous,keyspace,read,slow",
	} {
		name, sub, _ := strings.Cut(full, "|")
		if got := c.of(name, sub); got != c.set(want) || got == 0 {
			t.Errorf("%s: got %b, want %b (%s)", full, got, c.set(want), want)
		}
	}
	seen := map[string]bool{}
	for id, name := range c.names {
		if seen[name] || name != strings.ToUpper(name) || len(name) > maxName || c.own[id] == 0 {
			t.Errorf("%q: twice, not in upper case, too long or without category", name)
		}
		seen[name] = true
	}
	if len(c.names) < 300 || len(c.bits) != 28 {
		t.Errorf("%d commands, %d categories", len(c.names), len(c.bits))
	}
	for name := range c.subs {
		if !seen[name] {
			t.Errorf("subcommands of %q, which is none", name)
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

func TestRulesTellWhichNamesTheyDoNotKnow(t *testing.T) {
	r := newRules(t, RuleOptions{Allow: []string{"get", "gte", "x.y|z", "@read"}, Deny: []string{"SHUTDONW", "gte"}})
	if got, want := r.Unlisted(), []string{"GTE", "X.Y", "SHUTDONW"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if none := newRules(t, RuleOptions{DryRun: true}); none != nil {
		t.Error("rules without an entry")
	}
}

// expand is the slow, obvious reading of a list: every command and subcommand that it names.
func expand(list, universe []string) map[string]bool {
	c := commandCatalogue()
	set := map[string]bool{}
	for _, e := range list {
		for _, full := range universe {
			name, sub, _ := strings.Cut(full, "|")
			switch {
			case e == "@all":
				set[full] = true
			case e[0] == '@':
				row := full
				if !strings.Contains("\n"+commandsText, "\n"+row+" ") {
					row = name
				}
				_, line, _ := strings.Cut("\n"+commandsText, "\n"+row+" ")
				line, _, _ = strings.Cut(line, "\n")
				if _, known := c.ids[name]; known && slices.Contains(strings.Split(line, ","), e[1:]) {
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
	c := commandCatalogue()
	table := newTable(t)
	universe := []string{"NOSUCH", "MY.MODULE", "MY.MODULE|ADD", "MY.MODULE|DEL", "ACL|NEW", "CONFIG|GET", "CONFIG|SET", "CLIENT|KILL", "CLIENT|ID", "HELLO|3", "RESET|X"}
	universe = append(universe, c.names...)
	for name, subs := range c.subs {
		for sub := range subs {
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
	seed := testSeed(t)
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
		allow, deny := expand(o.Allow, universe), expand(o.Deny, universe)
		plain := slices.DeleteFunc(slices.Clone(o.Deny), func(e string) bool { return e[0] == '@' })
		byName := expand(plain, universe)
		for _, full := range universe {
			name, sub, _ := strings.Cut(full, "|")
			want := deny[full] || len(o.Allow) > 0 && !allow[full]
			if slices.Contains([]string{"AUTH", "HELLO", "QUIT", "RESET"}, name) {
				want = byName[full]
			}
			cmd, _ := table.lookup([]byte(name))
			if got := r.judge(cmd, []byte(strings.ToLower(name)), []byte(strings.ToLower(sub))) != nil; got != want {
				t.Fatalf("seed %d, %+v: %s refused: %v, want %v", seed, o, full, got, want)
			}
		}
	}
}

func newTable(t testing.TB, deny ...string) *commandTable {
	t.Helper()
	table, err := newCommandTable(deny)
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
			cmd, rest := table.lookup(name)
			if len(rest) == 0 {
				rest = sub
			}
			r.judge(cmd, name, rest)
		}); n != 0 {
			t.Errorf("%q: %v allocations", c, n)
		}
	}
}

func BenchmarkRules(b *testing.B) {
	table := newTable(b)
	r := newRules(b, RuleOptions{Allow: []string{"@read", "CONFIG|GET"}, Deny: []string{"KEYS"}})
	for _, c := range []string{"GET", "CONFIG"} {
		cmd, _ := table.lookup([]byte(c))
		b.Run(c, func(b *testing.B) {
			b.ReportAllocs()
			name, sub := []byte(c), []byte("GET")
			for b.Loop() {
				r.judge(cmd, name, sub)
			}
		})
	}
}
