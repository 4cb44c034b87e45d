package config

import (
	_ "embed"
	"regexp"
	"strings"
	"sync"
)

//go:embed docs/reasons.md
var reasonsManual string

// Reason is a row of the manual's page about reasons, as plain text.
type Reason struct {
	Line  string // what the log says, in tables that have such a column
	Cause string
	Cure  string
}

// Reasons returns the tables of config/docs/reasons.md: the name of a table leads to its rows, by the word that the code uses.
var Reasons = sync.OnceValue(func() map[string]map[string]Reason {
	tables := make(map[string]map[string]Reason)
	for _, m := range reasonTable.FindAllStringSubmatch(reasonsManual, -1) {
		tables[m[1]] = rowsOf(m[2])
	}
	return tables
})

var (
	reasonTable = regexp.MustCompile(`(?s)<!-- ([a-z ]+) -->\n(\|.*?)<!-- /`)
	manualLink  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

func rowsOf(table string) map[string]Reason {
	rows := make(map[string]Reason)
	var above Reason
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if i < 2 || len(cells) < 3 { // the head, and the rule below it
			continue
		}
		for k := range cells {
			cells[k] = strings.TrimSpace(strings.ReplaceAll(manualLink.ReplaceAllString(cells[k], "$1"), "`", ""))
		}
		n := len(cells)
		r := Reason{Cause: cells[n-2], Cure: cells[n-1]}
		if n > 3 {
			r.Line = cells[1]
		}
		for _, words := range []string{"the same", "as above"} { // as in the row above
			if rest, ok := strings.CutPrefix(r.Cure, words); ok {
				r.Cure = above.Cure + rest
			}
		}
		rows[cells[0]] = r
		above = r
	}
	return rows
}
