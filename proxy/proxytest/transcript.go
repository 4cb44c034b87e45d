package proxytest

import (
	"embed"
	"path"
	"strconv"
	"strings"
)

//go:embed testdata/*.txt
var transcripts embed.FS

// Transcript is one recording that comes with this package, and the server that it was made on.
type Transcript struct {
	File    string
	Options Options
}

// Transcripts lists them.
func Transcripts() []Transcript {
	entries, err := transcripts.ReadDir("testdata")
	if err != nil {
		panic(err) // embedded at build time
	}
	var list []Transcript
	for _, e := range entries {
		text, err := transcripts.ReadFile(path.Join("testdata", e.Name()))
		if err != nil {
			panic(err)
		}
		list = append(list, Transcript{e.Name(), serverOptions(string(text))})
	}
	return list
}

// serverOptions reads the line "# server: requirepass=x maxclients=n release=2026-08".
func serverOptions(text string) (opt Options) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "# server:")
		if !ok {
			continue
		}
		for _, f := range strings.Fields(rest) {
			switch name, val, _ := strings.Cut(f, "="); name {
			case "requirepass":
				opt.RequirePass = val
			case "maxclients":
				opt.MaxClients, _ = strconv.Atoi(val)
			case "loading":
				opt.Loading = true
			case "oom":
				opt.OOM = true
			case "release":
				if val == "2026-08" {
					opt.Release = August2026
				}
			}
		}
	}
	return opt
}

type block struct {
	title string
	at    int // line number of the first of lines
	lines []string
}

func blocks(text string) []block {
	var list []block
	for i, line := range strings.Split(text, "\n") {
		if title, ok := strings.CutPrefix(line, "== "); ok {
			list = append(list, block{title: title, at: i + 2})
			continue
		}
		if len(list) > 0 {
			b := &list[len(list)-1]
			b.lines = append(b.lines, line)
		}
	}
	return list
}
