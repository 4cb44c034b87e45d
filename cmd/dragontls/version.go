package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and revision are set by the linker (-ldflags "-X main.version=v1.2.3") where the build sees no repository.
var version, revision string

func (p program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		GroupID: groupOther,
		Short:   "prints the version",
		Long:    "Prints the version, the Go version and the revision it was built from.",
		Args:    noArguments,
		RunE:    func(*cobra.Command, []string) error { return asError(p.version()) },
	}
}

func (p program) version() int {
	fmt.Fprintf(p.stdout, "dragontls %s\n%s %s/%s\nrevision %s\n",
		buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, buildRevision())
	return exitOK
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func buildRevision() string {
	if revision != "" {
		return revision
	}
	found, modified := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				found = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = " (modified)"
			}
		}
	}
	return found + modified
}
