package proxy

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"dragontls/proxy/command"
)

// catalogueRow is a row of command/commands.txt.
type catalogueRow struct {
	full         string // NAME or NAME|SUBCOMMAND
	redis, class string
}

// catalogue returns the rows in their order.
var catalogue = sync.OnceValue(func() (rows []catalogueRow) {
	text, err := os.ReadFile("command/commands.txt")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); line[0] != '#' && len(fields) == 4 {
			rows = append(rows, catalogueRow{full: fields[0], redis: fields[2], class: fields[3]})
		}
	}
	return rows
})

// commandNames returns the names without subcommands, in their order.
var commandNames = sync.OnceValue(func() (names []string) {
	for _, row := range catalogue() {
		if !strings.Contains(row.full, "|") {
			names = append(names, row.full)
		}
	}
	return names
})

// hasSubcommands reports whether the catalogue has a row for a subcommand of the name.
func hasSubcommands(name string) bool {
	return slices.ContainsFunc(catalogue(), func(row catalogueRow) bool { return strings.HasPrefix(row.full, name+"|") })
}

func newRules(t testing.TB, o command.RuleOptions) *command.Rules {
	t.Helper()
	r, err := command.NewRules(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCatalogueIsWhatRedisSays(t *testing.T) {
	p := dialPlain(t, redisServer(t))
	p.send(cmd("INFO", "server"))
	if info := p.bulk(); !strings.Contains(info, "redis_version:7.0.") {
		t.Skip("the table is of Redis 7.0")
	}
	table, err := command.NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, category := range p.strings("ACL", "CAT") {
		here := strings.ReplaceAll(category, "hyperloglog", "hyperlog")
		var listed []string
		for _, row := range catalogue() {
			if slices.Contains(strings.Split(row.redis, ","), here) {
				listed = append(listed, strings.ToLower(row.full))
			}
		}
		theirs := p.strings("ACL", "CAT", category)
		slices.Sort(theirs)
		slices.Sort(listed)
		if !slices.Equal(listed, theirs) {
			t.Errorf("@%s: got %q\nwant %q", category, listed, theirs)
		}
		r := newRules(t, command.RuleOptions{Deny: []string{"@" + category}})
		for _, full := range theirs {
			name, sub, _ := strings.Cut(full, "|")
			cmd, _, _ := table.Lookup([]byte(name))
			always := slices.Contains([]string{"auth", "hello", "quit", "reset"}, name)
			if passes := r.Judge(cmd, []byte(name), []byte(sub)) == nil; passes != always {
				t.Errorf("deny @%s: %s passes: %v", category, full, passes)
			}
		}
	}
}

// bulk reads one bulk string.
func (w *wire) bulk() string {
	w.t.Helper()
	var n int
	if _, err := fmt.Sscanf(w.line(), "$%d", &n); err != nil {
		w.t.Fatal(err)
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(w.r, b); err != nil {
		w.t.Fatal(err)
	}
	return string(b[:n])
}

// strings asks for an array of strings.
func (w *wire) strings(args ...string) (all []string) {
	w.t.Helper()
	w.send(cmd(args...))
	var n int
	if _, err := fmt.Sscanf(w.line(), "*%d", &n); err != nil {
		w.t.Fatal(err)
	}
	for range n {
		all = append(all, w.bulk())
	}
	return all
}
