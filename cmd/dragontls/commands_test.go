package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"dragontls/config"
)

func TestTheNearestNameIsSuggested(t *testing.T) {
	for args, want := range map[string]string{
		"chekc":                      "check",
		"Probe":                      "probe",
		"heathcheck":                 "healthcheck",
		"vers":                       "version",
		"versoin":                    "version",
		"--versoin":                  "--version",
		"help chekc":                 "check",
		"pki inti":                   "init",
		"pki revoek x":               "revoke",
		"pki --dir x rotat":          "rotate",
		"check --no-backed":          "--no-backend",
		"check -json":                "--json",
		"check --jsn":                "--json",
		"check --hots x":             "--host",
		"pki init --key-mod 0600":    "--key-mode",
		"probe a:1 --pasword-file x": "--password-file",
		"probe a:1 -cert x":          "--cert",
		"dev --bakcend x":            "--backend",
		"settings --jsom":            "--json",
		"completion bsh":             "bash",
		// Nothing is near.
		"frobnicate":         "",
		"check --frobnicate": "",
		"pki frobnicate":     "",
		"x":                  "",
	} {
		got := invoke(nil, strings.Fields(args)...)
		first, _, _ := strings.Cut(got.stderr, "\n")
		_, question, _ := strings.Cut(first, "did you mean ")
		if got.code != exitConfig || strings.Trim(question, `"?`) != want {
			t.Errorf("%s: got exit code %d and %q, want %q", args, got.code, first, want)
		}
	}
}

func TestEveryCommandSaysHowItIsUsed(t *testing.T) {
	all := allCommands(program{}.root())
	if len(all) < 15 {
		t.Fatalf("found only %d commands", len(all))
	}
	for _, c := range all {
		args := strings.Fields(c.CommandPath())[1:]
		got := invoke(nil, append(args, "--help")...)
		if got.code != exitOK || !strings.HasPrefix(got.stdout, "usage: "+c.CommandPath()) || got.stderr != "" {
			t.Errorf("%s: got %+v", c.CommandPath(), got)
		}
		if c.Short == "" || c.Long == "" {
			t.Errorf("%s has no description", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if flagMeaning(f) == "" || !f.Hidden && !strings.Contains(got.stdout, "--"+f.Name) {
				t.Errorf("%s: the help does not explain --%s", c.CommandPath(), f.Name)
			}
		})
		for line := range strings.Lines(got.stdout) {
			if len(line) > usageWidth+1 {
				t.Errorf("%s: a line of %d columns: %s", c.CommandPath(), len(line), line)
			}
		}
		if len(args) == 1 {
			if other := invoke(nil, "help", args[0]); other != got {
				t.Errorf("help %s: got %+v, want %+v", args[0], other, got)
			}
		}
	}
}

func TestSettingsListsEveryVariable(t *testing.T) {
	text, help := invoke(nil, "settings"), invoke(nil, "serve", "--help")
	if text.code != exitOK || text.stderr != "" || !strings.Contains(help.stdout, strings.TrimSpace(text.stdout)) {
		t.Fatalf("got %+v; with --help %+v", text, help)
	}
	got := invoke(nil, "settings", "--json")
	var list []setting
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || got.code != exitOK {
		t.Fatal(err, got)
	}
	words := strings.Join(strings.Fields(text.stdout), " ")
	for i, v := range config.Variables() {
		s := list[i]
		doc, preset := strings.ReplaceAll(v.Doc, "'", ""), strings.ReplaceAll(v.Default, "'", "")
		if s.Variable != config.Prefix+v.Name || s.Meaning != doc || s.Default != preset || s.Secret != v.Secret || v.Twin != "" && s.FileVariable != config.Prefix+v.Twin {
			t.Errorf("got %+v, want %+v", s, v)
		}
		if !strings.Contains(words, doc) || !strings.Contains(words, config.Prefix+v.Name) || !strings.Contains(words, strings.ReplaceAll(preset, ",", ", ")) {
			t.Errorf("%s is not in the text with its default and meaning", v.Name)
		}
	}
	if len(list) != len(config.Variables()) || len(list) < 40 {
		t.Errorf("got %d variables", len(list))
	}
}

func TestCompletionScriptsAreValid(t *testing.T) {
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			got := invoke(nil, "completion", shell)
			if got.code != exitOK || !strings.Contains(got.stdout, "dragontls") || got.stderr != "" {
				t.Fatalf("got exit code %d, %d bytes, %q", got.code, len(got.stdout), got.stderr)
			}
			if _, err := exec.LookPath(shell); err != nil && shell != "bash" {
				return // the script of bash is always tried
			}
			cmd := exec.Command(shell, "-n")
			cmd.Stdin = strings.NewReader(got.stdout)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// What the scripts ask for.
func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"che":            "check",
		"pki re":         "revoke",
		"check --no":     "--no-backend",
		"completion f":   "fish",
		"pki init --key": "--key-mode",
	} {
		got := invoke(nil, append([]string{"__complete"}, strings.Fields(args)...)...)
		if got.code != exitOK || !strings.HasPrefix(got.stdout, want) {
			t.Errorf("%s: got %+v, want %s", args, got, want)
		}
	}
}

func TestManualPagesAreValid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if got := invoke(nil, "man", "--dir", dir); got != (outcome{}) {
		t.Fatalf("got %+v", got)
	}
	var pages []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			pages = append(pages, path)
		}
		return err
	})
	if want := len(allCommands(program{}.root())); err != nil || len(pages) != want {
		t.Fatalf("got %d pages, want %d: %v", len(pages), want, err)
	}
	request := regexp.MustCompile(`^\.(TH|SH|TP|nf|fi)\b`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !request.MatchString(line) {
				t.Errorf("%s: no request of ours: %s", page, line)
			}
		}
		for _, section := range []string{".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n"} {
			if !strings.Contains(string(text), section) {
				t.Errorf("%s has no %s", page, section)
			}
		}
		renderManual(t, page)
	}
	if !slices.Contains(pages, filepath.Join(dir, "dragontls-pki-init.1")) {
		t.Errorf("got %s", pages)
	}
}

// renderManual has the formatters that this machine has show the page.
func renderManual(t *testing.T, page string) {
	t.Helper()
	for _, c := range [][]string{{"mandoc", "-T", "lint", "-W", "error", page}, {"groff", "-man", "-ww", "-Tascii", page}, {"man", "-l", page}} {
		if _, err := exec.LookPath(c[0]); err != nil {
			continue
		}
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil || strings.Contains(string(out), "warning:") {
			t.Errorf("%s: %v\n%s", strings.Join(c, " "), err, out)
		}
	}
}
