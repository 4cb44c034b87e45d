package main

import (
	"os"
	"strings"
	"testing"
)

const commandsManual = "../../config/docs/commands.md"

// The manual has the help of every command, and nothing else between its marks. UPDATE_MANUAL=1 writes it anew.
func TestCommandsManualIsTheHelp(t *testing.T) {
	var want strings.Builder
	for _, c := range allCommands(program{}.root()) {
		help := invoke(nil, append(strings.Fields(c.CommandPath())[1:], "--help")...).stdout
		help, _, _ = strings.Cut(help, "\nVariables:\n") // settings.md has them
		want.WriteString("\n## " + c.CommandPath() + "\n\n```text\n" + strings.TrimSpace(help) + "\n```\n")
	}
	page, err := os.ReadFile(commandsManual)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(page), "<!-- commands -->\n")
	got, after, found := strings.Cut(rest, "\n<!-- /commands -->")
	if !found {
		t.Fatal("the marks are missing")
	}
	if os.Getenv("UPDATE_MANUAL") == "1" {
		page := before + "<!-- commands -->\n" + want.String() + "\n<!-- /commands -->" + after
		if err := os.WriteFile(commandsManual, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want.String() {
		t.Errorf("%s is not what the commands say: UPDATE_MANUAL=1 go test -run %s ./cmd/dragontls writes it", commandsManual, t.Name())
	}
}
