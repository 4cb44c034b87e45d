package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	findingInCode   = regexp.MustCompile(`(?:add\((?:certs\.)?[Ss]everity\w*, |\bID: |\bf\.ID, .* = )"([a-z_]+)"`)
	reasonInCode    = regexp.MustCompile(`\bReason\w+ += "([a-z_0-9]+)"`)
	findingInReadme = regexp.MustCompile("`([a-z_]+)`")
)

// Each finding of check, and each fault, has a row in checks.md, and each row is of one.
func TestFindingsOfCheckAreDocumented(t *testing.T) {
	inCode := map[string]bool{}
	sources := 0
	for _, pattern := range []string{"*.go", "../../certs/*.go", "../../certs/reload/*.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			sources++
			for _, m := range slices.Concat(findingInCode.FindAllSubmatch(text, -1), reasonInCode.FindAllSubmatch(text, -1)) {
				inCode[string(m[1])] = true
			}
		}
	}
	if sources < 40 || len(inCode) < 60 {
		t.Fatalf("%d findings in %d files: the search misses some", len(inCode), sources)
	}
	readme, err := os.ReadFile("../../config/docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "<!-- findings -->\n")
	table, _, found := strings.Cut(rest, "<!-- /findings -->")
	if !found {
		t.Fatal("checks.md has no table of findings")
	}
	documented := map[string]bool{}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) != 5 {
			t.Errorf("got %d cells in %s", len(cells), row)
			continue
		}
		for _, m := range findingInReadme.FindAllStringSubmatch(cells[1], -1) {
			if documented[m[1]] {
				t.Errorf("%s has two rows", m[1])
			}
			documented[m[1]] = true
			if strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
				t.Errorf("%s has no cause or no cure", m[1])
			}
		}
	}
	wantDocumented(t, inCode, documented)
}
