package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dragontls/config"
)

// The groups of commands in the help, by their titles.
const (
	groupRun     = "Run the proxy"
	groupPrepare = "Prepare and verify"
	groupSteer   = "Ask and steer a running proxy"
	groupOther   = "About this program"
)

// exitCode ends a command whose messages have been written.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// asError returns the exit code of a command as its error.
func asError(code int) error {
	if code == exitOK {
		return nil
	}
	return exitCode(code)
}

// misuse is a command line that cannot be understood. Its text is followed by how the command is used.
type misuse struct {
	command *cobra.Command
	text    string
}

func (m *misuse) Error() string { return m.text }

func misused(c *cobra.Command, format string, a ...any) error {
	return &misuse{c, fmt.Sprintf(format, a...)}
}

// root is the tree of all commands.
func (p program) root() *cobra.Command {
	var asksVersion bool
	root := &cobra.Command{
		Use:   "dragontls [command]",
		Short: "TLS-terminating proxy for Dragonfly and Redis",
		Long: `"dragontls COMMAND --help" says more. Settings are DRAGONTLS_ environment variables:
"dragontls settings" lists them.`,
		Args:          cobra.ArbitraryArgs, // a nearest name is suggested
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return misused(c, "unknown command %q%s", args[0], suggest(args[0], names(c)))
			case asksVersion:
				return asError(p.version())
			}
			return asError(serve(p.env, "", p.stderr))
		},
	}
	root.Flags().BoolVar(&asksVersion, "version", false, "prints the version, as the command does")
	root.PersistentFlags().BoolP("help", "h", false, "prints how a command is used")
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { p.writeUsage(p.stdout, c) })
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: groupRun}, &cobra.Group{ID: groupPrepare}, &cobra.Group{ID: groupSteer}, &cobra.Group{ID: groupOther})
	root.AddCommand(p.serveCommand(), p.devCommand(), p.pkiCommand(), p.checkCommand(), p.probeCommand(), p.settingsCommand(),
		p.healthcheckCommand(), p.statusCommand(), p.sessionsCommand(), p.killCommand(), p.reloadCommand(), p.drainCommand(),
		p.logLevelCommand(), p.versionCommand(), p.completionCommand(), p.manCommand())
	help := p.helpCommand()
	root.SetHelpCommand(help)
	root.AddCommand(help)
	for _, c := range allCommands(root) {
		c.Flags().SortFlags, c.DisableFlagsInUseLine = false, true
	}
	return root
}

// allCommands returns c and those below it, in the order of the help.
func allCommands(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, below := range c.Commands() {
		all = append(all, allCommands(below)...)
	}
	return all
}

// noArguments refuses all arguments but flags.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misused(c, "unknown argument %q", args[0])
	}
	return nil
}

// oneArgument wants what, and nothing else.
func oneArgument(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return misused(c, "%s is missing", what)
		}
		return noArguments(c, args[1:])
	}
}

// noEmptyFlag refuses a flag that was set to nothing, as an unset variable of a shell does.
func noEmptyFlag(c *cobra.Command) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.String() == "" {
			err = misused(c, "--%s is empty", f.Name)
		}
	})
	return err
}

// flagError makes a misuse of an error of pflag. The word as it was typed is in it.
func flagError(c *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return misused(c, "%v", err)
	}
	typed := "--" + unknown.GetSpecifiedName()
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		typed = "-" + short
	}
	what := "argument"
	if !c.HasParent() {
		what = "command" // the arguments of serve want the name of the command
	}
	return misused(c, "unknown %s %q%s", what, typed, suggest(typed, flagNames(c)))
}

func names(c *cobra.Command) (list []string) {
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() {
			list = append(list, below.Name())
		}
	}
	return list
}

func flagNames(c *cobra.Command) (list []string) {
	visibleFlags(c).VisitAll(func(f *pflag.Flag) { list = append(list, "--"+f.Name) })
	return list
}

// visibleFlags are those that a person may use with the command.
func visibleFlags(c *cobra.Command) *pflag.FlagSet {
	all := pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
	all.SortFlags = false
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			all.AddFlag(f)
		}
	})
	return all
}

// suggest returns a question for the nearest of names, or nothing if none is near.
func suggest(typed string, names []string) string {
	plain := strings.ToLower(strings.TrimLeft(typed, "-"))
	var words []string
	for _, name := range names {
		words = append(words, strings.TrimLeft(name, "-")) // one dash, where two are wanted, is no other word
	}
	i := slices.Index(words, config.Nearest(plain, words))
	if i < 0 {
		i = slices.IndexFunc(words, func(word string) bool { return len(plain) > 1 && strings.HasPrefix(word, plain) })
	}
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", names[i])
}
