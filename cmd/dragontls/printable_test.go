package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"dragontls/certs"
)

// hostile would set a window's title, overwrite a line, use C1 instead of ESC [, turn
// the text around and hide; the rest is what names are made of.
const hostile = "a\x1b]0;owned\a\rb\u0085c\u009b2Jd\u202ee\u2066f\u200bg\U000e0001h\x7fi\u2028j é日本 `x`\n{\"y\"}"

func TestNothingThatSteersATerminalIsPrinted(t *testing.T) {
	finding := certs.Finding{ID: "id", Severity: certs.SeverityError, Subject: hostile, Message: hostile, Cure: hostile}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"check": func(b *bytes.Buffer) error {
			printReport(b, report{Result: resultFindings, Findings: []certs.Finding{finding}})
			return nil
		},
		"check, nothing found": func(b *bytes.Buffer) error {
			printReport(b, report{Result: resultOK, Checked: []string{hostile}})
			return nil
		},
		"check --json": func(b *bytes.Buffer) error {
			writeReport(b, report{Result: resultFindings, Checked: []string{}, Findings: []certs.Finding{finding}})
			return nil
		},
		"probe": func(b *bytes.Buffer) error {
			r := probeReport{}
			r.fail("chain", hostile, hostile)
			return r.write(b)
		},
		"probe --json": func(b *bytes.Buffer) error {
			r := probeReport{}
			r.fail("chain", hostile, hostile)
			return r.writeJSON(b)
		},
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); printable(strings.ReplaceAll(got, "\n", "")) != strings.ReplaceAll(got, "\n", "") || !strings.Contains(got, "é日本 `x`") {
			t.Errorf("%s: %q", name, got)
		}
		if strings.HasPrefix(name, "check") && !strings.HasSuffix(name, "json") && strings.Count(b.String(), "\n") != 1 {
			t.Errorf("%s: not one line: %q", name, b.String())
		}
	}
}

func TestJSONSaysWhatItWasGiven(t *testing.T) {
	var b bytes.Buffer
	if err := writeJSON(&b, []string{hostile}); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got[0] != hostile {
		t.Errorf("got %q, %v, of %s", got, err, b.String())
	}
}
