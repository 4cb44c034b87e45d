package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestReadmeTable(t *testing.T) {
	text, err := os.ReadFile("docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- variables -->\n")
	got, _, ended := strings.Cut(rest, "<!-- /variables -->")
	if !ok || !ended {
		t.Fatal("settings.md has no lines <!-- variables --> and <!-- /variables --> around its table")
	}
	have, want := lines(got), lines(Table())
	for line := range want {
		if !have[line] {
			t.Errorf("settings.md lacks\n+%s", line)
		}
	}
	for line := range have {
		if !want[line] {
			t.Errorf("settings.md has\n-%s", line)
		}
	}
	if !t.Failed() && strings.TrimSpace(got) != strings.TrimSpace(Table()) {
		t.Errorf("settings.md has the right lines in another order, want\n%s", Table())
	}
}

var apostrophe = regexp.MustCompile(`\w'\w`)

func lines(s string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			set[line] = true
		}
	}
	return set
}

// Each field has what the table and the checks need; bound panics on a bad range.
func TestEveryFieldIsDescribed(t *testing.T) {
	twins := map[string]bool{}
	for _, v := range Variables() {
		twins[v.Twin] = true
	}
	for _, f := range fields() {
		name := f.Tag.Get("env")
		if name == "" || f.Tag.Get("doc") == "" && !twins[name] {
			t.Errorf("field %s has no env or no doc", f.Name)
		}
		if apostrophe.MatchString(f.Tag.Get("doc") + f.Tag.Get("shown")) {
			t.Errorf("field %s: an apostrophe would begin code in the table", f.Name)
		}
		if (f.Tag.Get("min") == "") != (f.Tag.Get("max") == "") {
			t.Errorf("field %s has only one of min and max", f.Name)
		}
		if rangeOf(f) != "" && bound(f, "min") > bound(f, "max") {
			t.Errorf("field %s has an empty range", f.Name)
		}
		if twin := f.Tag.Get("twin"); twin != "" && f.Tag.Get("secret") == "" {
			t.Errorf("field %s has a twin but is no secret", f.Name)
		}
	}
	if v := Variables()[0]; v.Name != "LISTEN" || v.Default != "':6380'" {
		t.Errorf("got %+v", v)
	}
}
