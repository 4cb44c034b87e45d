package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be its own load generator, janitor and model, as dragonbench is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{loadCommand, janitorCommand, modelCommand}, os.Args[1]) {
		os.Exit(dispatch(os.Args[1:]))
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "benchtest"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(buildDir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

var buildDir string

// built is a program of this repository.
func built(t *testing.T, name string) string {
	t.Helper()
	path, err := builds[name]()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builds = map[string]func() (string, error){
	"dragonbench": sync.OnceValues(func() (string, error) { return buildProgram("dragonbench") }),
	"dragontls":   sync.OnceValues(func() (string, error) { return buildProgram("dragontls") }),
}

func buildProgram(name string) (string, error) {
	path := filepath.Join(buildDir, name)
	// Nothing is measured here: no package is compiled once more for a CPU profile.
	out, err := exec.Command("go", "build", "-buildvcs=false", "-pgo=off", "-o", path, "dragontls/cmd/"+name).CombinedOutput()
	if err != nil {
		os.Stderr.Write(out)
	}
	return path, err
}

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := lookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CI_STRICT") == "1" {
			t.Fatal(tool + " is not installed")
		}
		t.Skip(tool + " is not installed")
	}
}

// testRig is a rig with a backend, which ends with the test.
func testRig(t *testing.T) *rig {
	t.Helper()
	need(t, "redis-server")
	k, err := newKeeper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	backend, err := findBackend("", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRig(context.Background(), k, backend)
	if err != nil {
		t.Fatal(err)
	}
	r.dragontlsBin = built(t, "dragontls")
	return r
}

func TestOptionsRefuseWhatMakesNoSense(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"serve", "no such command"},
		{"--quick --full", "choose one"},
		{"--load wrk", "own or redis-benchmark"},
		{"--seconds -1", "above zero"},
		{"--only no-such-row", "no such row or peer"},
		{"--no-such-flag", "not defined"},
	} {
		t.Run(test.args, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(test.args), &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}
