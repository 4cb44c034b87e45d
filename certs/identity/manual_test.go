package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The examples that people copy are those that the other tests parse.
func TestManualShowsTheExamples(t *testing.T) {
	page, err := os.ReadFile("../../config/docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "```yaml\n"+strings.TrimSpace(string(text))+"\n```\n") {
			t.Errorf("clients.md does not show %s", file)
		}
	}
}
