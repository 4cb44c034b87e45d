package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
)

// printable keeps names that a peer chose from steering the terminal or turning
// the text around: whatever is no letter, mark, digit, punctuation, symbol or
// plain space becomes '?', and with that all control characters, C1 and line ends
// included, and those that set the direction of writing.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// oneLine is printable with line ends as spaces.
func oneLine(s string) string { return printable(strings.ReplaceAll(s, "\n", " ")) }

// writeJSON prints v for programs and for people. The
// encoder leaves what is above U+007E as it is; what is not printable is escaped.
func writeJSON(w io.Writer, v any) error {
	var raw bytes.Buffer
	e := json.NewEncoder(&raw)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range raw.String() {
		switch high, low := utf16.EncodeRune(r); {
		case r == '\n', unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
