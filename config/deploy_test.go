package config

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// need skips the test where a tool is missing; CI turns that into a failure.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("CI_STRICT") == "1" {
		t.Fatal(tool + " is not installed")
	}
	t.Skip(tool + " is not installed")
}

func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	need(t, "systemd-analyze")
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"dragontls.service", "dragontls.socket", "dragontls-admin.socket"} {
		text, err := os.ReadFile(filepath.Join("deploy/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(dir, name)
		text = []byte(strings.Replace(string(text), "ExecStart=/usr/bin/dragontls", "ExecStart=/bin/true", 1)) // it must exist
		if err := os.WriteFile(unit, text, 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, units...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", units[0]).CombinedOutput()
	level := regexp.MustCompile(`Overall exposure level for dragontls.service: ([\d.]+)`).FindSubmatch(out)
	if err != nil || level == nil {
		t.Fatalf("security: %v\n%s", err, out)
	}
	var exposure float64
	if _, err := fmt.Sscan(string(level[1]), &exposure); err != nil || exposure > 2 {
		t.Errorf("the exposure level is %s (%v), want at most 2.0", level[1], err)
	}
}

// The drop-in of the manual, for a service without a password of its own, takes away all that the unit demands of that password, and
// systemd understands it. The unit's comment has the same lines.
func TestSystemdUnitWithoutAPassword(t *testing.T) {
	t.Parallel()
	need(t, "systemd-analyze")
	unit, err := os.ReadFile("deploy/systemd/dragontls.service")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	dropIn := regexp.MustCompile("(?s)```\n(\\[Service\\]\n.*?)```").FindSubmatch(manual)
	if dropIn == nil {
		t.Fatal("the manual has no drop-in")
	}
	commented := "#   " + strings.ReplaceAll(strings.TrimSpace(string(dropIn[1])), "\n", "\n#   ")
	if !strings.Contains(string(unit), commented) {
		t.Errorf("the comment of the unit lacks\n%s", commented)
	}
	variable := regexp.MustCompile(`(?m)^Environment=(\w+)=%d/`).FindSubmatch(unit)
	if variable == nil || !strings.Contains(string(dropIn[1]), "\nUnsetEnvironment="+string(variable[1])+"\n") || !strings.Contains(string(dropIn[1]), "\nLoadCredential=\n") {
		t.Errorf("the drop-in leaves %s or its credential:\n%s", variable, dropIn[1])
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "dragontls-without.service")
	if err := os.WriteFile(path, append(dropIn[1], "ExecStart=/bin/true\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
}
