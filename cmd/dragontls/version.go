package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version and revision are set by the linker (-ldflags "-X main.version=v1.2.3") where the build sees no repository.
var version, revision string

const versionUsage = `usage: dragontls version

Prints the version, the Go version and the revision it was built from.
`

func printVersion(args []string, stdout, stderr io.Writer) int {
	if code, done := noArguments(args, versionUsage, stdout, stderr); done {
		return code
	}
	fmt.Fprintf(stdout, "dragontls %s\n%s %s/%s\nrevision %s\n",
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
