package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var shells = []string{"bash", "zsh", "fish"}

func (p program) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "completion bash|zsh|fish",
		GroupID: groupOther,
		Short:   "prints a script that completes commands and flags in a shell",
		Long: `Prints a script that completes commands and flags in a shell. For the shell that runs:

  bash    source <(dragontls completion bash)
  zsh     source <(dragontls completion zsh)
  fish    dragontls completion fish | source

To have it always, write it to /usr/share/bash-completion/completions/dragontls (with the package
bash-completion), to _dragontls in a directory of zsh's $fpath, or to
~/.config/fish/completions/dragontls.fish.`,
		Args:      oneArgument("the shell (" + strings.Join(shells, ", ") + ")"),
		ValidArgs: shells,
		RunE: func(c *cobra.Command, args []string) error {
			switch root := c.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(p.stdout, true)
			case "zsh":
				return root.GenZshCompletion(p.stdout)
			case "fish":
				return root.GenFishCompletion(p.stdout, true)
			}
			return misused(c, "unknown shell %q%s", args[0], suggest(args[0], shells))
		},
	}
}

func (p program) manCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:     "man --dir DIR",
		GroupID: groupOther,
		Short:   "writes man pages",
		Long:    "Writes the man pages of all commands, dragontls.1 and dragontls-COMMAND.1, to DIR, which is made\nif it is missing.",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return misused(c, "--dir is missing")
			}
			return writeManual(c.Root(), dir)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "`DIR`: directory of the pages")
	return c
}

// writeManual writes a page for each command. The same program writes the same pages.
func writeManual(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range allCommands(root) {
		var page bytes.Buffer
		manualPage(&page, c)
		if err := os.WriteFile(filepath.Join(dir, manualName(c)+".1"), page.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func manualName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manualPage writes the page of c in the macros of man(7).
func manualPage(w io.Writer, c *cobra.Command) {
	fmt.Fprintf(w, ".TH %q 1 \"\" %q \"dragontls manual\"\n", strings.ToUpper(manualName(c)), roff("dragontls "+buildVersion()))
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", roff(manualName(c)), roff(c.Short))
	fmt.Fprintf(w, ".SH SYNOPSIS\n%s\n", roff(c.UseLine()))
	fmt.Fprintf(w, ".SH DESCRIPTION\n%s\n", verbatim(c.Long))
	if below := c.Commands(); len(below) > 0 {
		fmt.Fprint(w, ".SH COMMANDS\n")
		for _, b := range below {
			fmt.Fprintf(w, ".TP\n\\fB%s\\fR(1)\n%s\n", roff(manualName(b)), roff(b.Short))
		}
	}
	if flags := visibleFlags(c); flags.HasFlags() {
		fmt.Fprint(w, ".SH OPTIONS\n")
		flags.VisitAll(func(f *pflag.Flag) { fmt.Fprintf(w, ".TP\n\\fB%s\\fR\n%s\n", roff(flagTitle(f)), roff(flagMeaning(f))) })
	}
	if text := c.Annotations[afterFlags]; text != "" {
		fmt.Fprintf(w, ".SH NOTES\n%s\n", verbatim(text))
	}
	if c.HasParent() {
		fmt.Fprintf(w, ".SH SEE ALSO\n\\fB%s\\fR(1)\n", roff(manualName(c.Parent())))
	}
}

// verbatim keeps the lines of text as they are.
func verbatim(text string) string { return ".nf\n" + roff(text) + "\n.fi" }

// roff escapes what means something to troff: backslashes, hyphens that must not become dashes, and control characters that begin a line.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
