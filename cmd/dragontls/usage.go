package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dragontls/config"
)

const (
	usageWidth  = 110 // columns
	usageIndent = 23  // where the meaning of a command or flag begins

	// afterFlags is the annotation with what the help says last, such as exit codes.
	afterFlags = "after"

	exitsOfServe = "Exit codes: 0 drained, 1 failed or drain timed out, 2 bad configuration."
)

func after(text string) map[string]string { return map[string]string{afterFlags: text} }

// writeUsage says how c is used.
func (p program) writeUsage(w io.Writer, c *cobra.Command) {
	fmt.Fprintf(w, "usage: %s\n\n%s\n", c.UseLine(), c.Long)
	groups := c.Groups()
	if len(groups) == 0 && len(names(c)) > 0 {
		groups = []*cobra.Group{{}}
	}
	for _, g := range groups {
		fmt.Fprintln(w)
		if g.ID != "" {
			fmt.Fprintf(w, "%s:\n", g.ID)
		}
		for _, below := range c.Commands() {
			if below.IsAvailableCommand() && below.GroupID == g.ID {
				item(w, argumentsOf(below), below.Short)
			}
		}
	}
	if flags := visibleFlags(c); flags.HasFlags() {
		fmt.Fprintln(w)
		flags.VisitAll(func(f *pflag.Flag) { item(w, flagTitle(f), flagMeaning(f)) })
	}
	if text := c.Annotations[afterFlags]; text != "" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
}

// argumentsOf returns the name of c and the arguments that it must have.
func argumentsOf(c *cobra.Command) string {
	words := strings.Fields(c.Use)
	if len(words) > 1 && words[1] == strings.ToUpper(words[1]) && words[1][0] != '[' {
		return words[0] + " " + words[1]
	}
	return words[0]
}

// flagTitle returns a flag as it is typed, with the name of its value.
func flagTitle(f *pflag.Flag) string {
	title := "--" + f.Name
	if f.Shorthand != "" {
		title = "-" + f.Shorthand + ", " + title
	}
	if name, _ := pflag.UnquoteUsage(f); name != "" {
		title += " " + name
	}
	return title
}

func flagMeaning(f *pflag.Flag) string {
	name, text := pflag.UnquoteUsage(f)
	return strings.TrimPrefix(text, name+": ")
}

// item writes a title and, beside it, its meaning.
func item(w io.Writer, title, meaning string) {
	fmt.Fprintf(w, "  %-*s", usageIndent-3, title)
	if len(title) > usageIndent-3 {
		fmt.Fprintf(w, "\n  %-*s", usageIndent-3, "")
	}
	for i, line := range wrapped(meaning, usageWidth-usageIndent) {
		if i > 0 {
			fmt.Fprint(w, strings.Repeat(" ", usageIndent-1))
		}
		fmt.Fprintf(w, " %s\n", line)
	}
}

// wrapped cuts text into lines of at most width bytes, where its words allow.
func wrapped(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case len(*last)+1+len(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

// setting is one variable as `dragontls settings --json` prints it.
type setting struct {
	Variable     string `json:"variable"`
	FileVariable string `json:"file_variable,omitempty"` // it names a file that holds the value instead
	Default      string `json:"default"`
	Meaning      string `json:"meaning"`
	Secret       bool   `json:"secret"`
	Live         bool   `json:"live"` // a change in the file of --env-file takes effect without a restart
}

func settings() (list []setting) {
	unmarked := strings.NewReplacer("'", "")
	for _, v := range config.Variables() {
		s := setting{config.Prefix + v.Name, "", unmarked.Replace(v.Default), unmarked.Replace(v.Doc), v.Secret, v.Live}
		if v.Twin != "" {
			s.FileVariable = config.Prefix + v.Twin
		}
		list = append(list, s)
	}
	return list
}

// settingsText lists every variable with its default and its meaning.
func settingsText() string {
	var b strings.Builder
	for _, s := range settings() {
		b.WriteString(s.Variable)
		if s.FileVariable != "" {
			b.WriteString(" or " + s.FileVariable)
		}
		lines := wrapped(s.Meaning, usageWidth-4)
		if s.Default == "required" {
			b.WriteString(" (required)")
		} else if s.Default != "" {
			lines = slices.Concat(wrapped("default: "+strings.ReplaceAll(s.Default, ",", ", "), usageWidth-4), lines)
		}
		b.WriteString("\n    " + strings.Join(lines, "\n    ") + "\n")
	}
	return b.String()
}

func (p program) serveCommand() *cobra.Command {
	var envFile string
	c := &cobra.Command{
		Use:     "serve [--env-file FILE]",
		GroupID: groupRun,
		Short:   "runs the proxy (also without a command)",
		Long: `Runs the proxy. All settings are environment variables, see below.
SIGTERM and SIGINT drain, a second SIGTERM ends at once, SIGHUP reads the certificates and FILE again.`,
		Annotations: after(exitsOfServe + "\n\nVariables:\n\n" + strings.TrimSuffix(settingsText(), "\n")),
		Args:        noArguments,
		RunE:        func(*cobra.Command, []string) error { return asError(serve(p.env, envFile, p.stderr)) },
	}
	c.Flags().StringVar(&envFile, "env-file", "", "`FILE`: reads variables that the environment does not set from FILE, a NAME=VALUE a line")
	return c
}

func (p program) settingsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "settings [--json]",
		GroupID: groupPrepare,
		Short:   "lists every variable with its default and meaning",
		Long:    "Lists every environment variable that serve reads, with its default and meaning. It reads none of them.",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			if !asJSON {
				_, err := io.WriteString(p.stdout, settingsText())
				return err
			}
			e := json.NewEncoder(p.stdout)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(settings())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, `prints [{"variable", "file_variable", "default", "meaning", "secret", "live"}]`)
	return c
}

func (p program) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		GroupID: groupOther,
		Short:   "prints how a command is used",
		Long:    `Prints how a command is used, as "dragontls COMMAND --help" does.`,
		RunE: func(c *cobra.Command, args []string) error {
			of, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return misused(c, "unknown command %q%s", strings.Join(args, " "), suggest(args[len(args)-1], names(of)))
			}
			return of.Help()
		},
	}
}
