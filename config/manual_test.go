package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	notSlug = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// slugs returns the anchors of a page's headings, as GitHub makes them.
func slugs(text string) map[string]bool {
	found := map[string]bool{}
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if title := strings.TrimLeft(line, "#"); !code && title != line {
			s := notSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			found[strings.ReplaceAll(s, " ", "-")] = true
		}
	}
	return found
}

func TestLinksOfTheManualLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatal(pages, err)
	}
	links, linked := 0, map[string]bool{}
	for _, page := range append(pages, "../README.md", "../cmd/dragonbench/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			path, anchor, hasAnchor := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			links++
			to := page
			if path != "" {
				to = filepath.Join(filepath.Dir(page), path)
			}
			target, err := os.ReadFile(to)
			if err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
				continue
			}
			linked[filepath.Base(to)] = linked[filepath.Base(to)] || to != page
			if hasAnchor && !slugs(string(target))[anchor] {
				t.Errorf("%s: link to %s: there is no such heading", page, m[1])
			}
		}
	}
	if links < 20 {
		t.Errorf("found %d links, the pages have more", links)
	}
	for _, page := range pages {
		if !linked[filepath.Base(page)] {
			t.Errorf("no page has a link to %s", page)
		}
	}
}

func TestReadmeIsShort(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 250 {
		t.Errorf("README.md has %d lines, at most 250 are read: move what is looked up to config/docs", n)
	}
}
