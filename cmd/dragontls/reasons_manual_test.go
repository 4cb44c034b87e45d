package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dragontls/proxy"
)

// reasonTable is a table of config/docs/reasons.md and where the code has the same words. Each word is the label of a metric.
type reasonTable struct {
	name  string // between the comments around the table
	files []string
	// words finds lines of the code. What word finds in them is a label.
	words, word *regexp.Regexp
	fewest      int // fewer found words are a fault of the search
}

var inQuotes = regexp.MustCompile(`"([a-z][a-z_]*)"`)

var reasonTables = []reasonTable{
	{"reasons of handshakes", []string{"../../proxy/reasons.go"}, regexp.MustCompile(`^\thandshake[A-Z]\w* += "`), inQuotes, 29},
	{"reasons of sessions", []string{"../../proxy/reasons.go"}, regexp.MustCompile(`^\tclose[A-Z]\w* +closeReason = "`), inQuotes, 35},
	{"kinds of denials", []string{"../../proxy/denials.go"}, regexp.MustCompile(`^\tby[A-Z]\w*: "`), inQuotes, 5},
	{"reasons of backend errors", []string{"../../proxy/*.go", "../../proxy/backend/*.go", "../../proxy/lane/*.go"},
		regexp.MustCompile(`\.Count\("`), regexp.MustCompile(`\.Count\("([a-z_]+)"`), 8}, // TestFaultsOfTheBackendAreDocumented has the others
	{"reasons of backend recoveries", []string{"../../proxy/*.go", "../../proxy/backend/*.go", "../../proxy/lane/*.go"},
		regexp.MustCompile(`\.Recovered\("`), regexp.MustCompile(`\.Recovered\("([a-z_]+)"`), 4},
	{"limits", []string{"../../proxy/limits.go"}, regexp.MustCompile(`^\tlimit[A-Z]\w*: +\{"`), regexp.MustCompile(`\{"([a-z_]+)",`), 8},
}

// inCode returns the words of the code.
func (r *reasonTable) inCode(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, pattern := range r.files {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if !r.words.MatchString(line) {
					continue
				}
				code, _, _ := strings.Cut(line, "//")
				for _, m := range r.word.FindAllStringSubmatch(code, -1) {
					found[m[1]] = true
				}
			}
		}
	}
	delete(found, "ok") // the reason of a handshake that was not refused
	return found
}

// inManual returns the words of the table, each of which has a cause and a cure.
func (r *reasonTable) inManual(t *testing.T, page string) map[string]bool {
	t.Helper()
	_, rest, _ := strings.Cut(page, "<!-- "+r.name+" -->\n")
	table, _, found := strings.Cut(rest, "<!-- /"+r.name+" -->")
	if !found {
		t.Fatalf("config/docs/reasons.md has no table of %s", r.name)
	}
	documented := map[string]bool{}
	rows := slices.Collect(strings.Lines(table))
	for _, row := range rows[min(2, len(rows)):] {
		cells := strings.Split(row, "|")
		if len(cells) != 5 {
			t.Errorf("got %d cells in %s", len(cells), row)
			continue
		}
		word := strings.Trim(strings.TrimSpace(cells[1]), "`")
		if documented[word] {
			t.Errorf("%s has two rows", word)
		}
		documented[word] = true
		if strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("%s has no cause or no cure", word)
		}
	}
	return documented
}

// Each reason, and each other label that says what happened, has a row in config/docs/reasons.md with its cause and its cure, and each row is of one.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../config/docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reasonTables {
		t.Run(r.name, func(t *testing.T) {
			code, documented := r.inCode(t), r.inManual(t, string(page))
			if len(code) < r.fewest {
				t.Fatalf("%d words in the code: the search misses some", len(code))
			}
			wantDocumented(t, code, documented)
		})
	}
}

// A metric with the label reason, by or of whose values are words of the code is one of those that have a table.
func TestEveryReasonHasATable(t *testing.T) {
	text, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]bool{
		"sessions_closed_total": true, "handshakes_total": true, "commands_denied_total": true, "backend_errors_total": true,
		"backend_recoveries_total": true,
		"reload_total":             true, // its reasons are findings, see TestFindingsOfCheckAreDocumented
	}
	seen := 0
	for _, m := range regexp.MustCompile(`(?s)m\.(?:counter|gauge)\("(\w+)".*?\)\n`).FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(m[0], `label("reason"`) && !strings.Contains(m[0], `label("by"`) {
			continue
		}
		if seen++; !tables[m[1]] {
			t.Errorf("the labels of %s are not documented", m[1])
		}
	}
	if seen < len(tables) {
		t.Errorf("%d metrics found: the search misses some", seen)
	}
}

// The manual of the status names each place where a session can be.
func TestPlacesOfSessionsAreDocumented(t *testing.T) {
	page := read(t, "../../config/docs/status.md")
	for _, place := range proxy.Places() {
		if !strings.Contains(page, "`"+place+"`") {
			t.Errorf("%s is not documented", place)
		}
	}
}

// wantDocumented wants the words of the code and those of the manual to be the same.
func wantDocumented(t *testing.T, code, documented map[string]bool) {
	t.Helper()
	for word := range code {
		if !documented[word] {
			t.Errorf("%s is not documented", word)
		}
	}
	for word := range documented {
		if !code[word] {
			t.Errorf("%s is documented, and no code says it", word)
		}
	}
}
