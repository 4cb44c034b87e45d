package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// packaging is what these tests read of .goreleaser.yaml; goreleaser itself checks the whole.
type packaging struct {
	Archives []struct {
		Files []string `json:"files"`
	} `json:"archives"`
	Packages []struct {
		Scripts  map[string]string `json:"scripts"`
		Contents []struct {
			From string `json:"src"`
			To   string `json:"dst"`
			Type string `json:"type"`
		} `json:"contents"`
	} `json:"nfpms"`
}

const top = "../.."

func readPackaging(t *testing.T) (p packaging) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, top+"/.goreleaser.yaml")), &p); err != nil || len(p.Packages) != 1 || len(p.Archives) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	return p
}

func TestPackagesHoldEveryUnitAndTheManual(t *testing.T) {
	t.Parallel()
	p := readPackaging(t)
	to := map[string]string{}
	for _, c := range p.Packages[0].Contents {
		to[c.From] = c.To
		if _, err := os.Stat(filepath.Join(top, c.From)); err != nil {
			t.Error(err)
		}
		if strings.HasPrefix(c.To, "/etc/") && c.Type != "config|noreplace" {
			t.Errorf("an update would replace %s", c.To)
		}
	}
	units, err := filepath.Glob("systemd/*")
	if err != nil || len(units) < 4 {
		t.Fatal(units, err)
	}
	for _, unit := range units {
		want := "/usr/lib/systemd/system/" + filepath.Base(unit)
		if filepath.Ext(unit) == ".conf" {
			want = "/usr/lib/sysusers.d/" + filepath.Base(unit)
		}
		if got := to["config/deploy/"+unit]; got != want {
			t.Errorf("%s is installed as %q, want %q", unit, got, want)
		}
	}
	if to["config/docs"] == "" {
		t.Error("the manual is not in the packages")
	}
	for _, pattern := range p.Archives[0].Files {
		if found, err := filepath.Glob(filepath.Join(top, strings.ReplaceAll(pattern, "**", "*"))); err != nil || len(found) == 0 {
			t.Errorf("the archive's %s finds nothing (%v)", pattern, err)
		}
	}
}

func TestScriptsOfPackagesAreShell(t *testing.T) {
	t.Parallel()
	scripts := readPackaging(t).Packages[0].Scripts
	if len(scripts) != 3 {
		t.Errorf("scripts: %v", scripts)
	}
	for _, file := range scripts {
		if out, err := exec.Command("sh", "-n", filepath.Join(top, file)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// The first settings that somebody sees are ones that exist.
func TestPackagedSettingsExist(t *testing.T) {
	t.Parallel()
	known, seen := settings(t), 0
	for line := range strings.Lines(read(t, "packages/dragontls.env")) {
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			seen++
			if !known[name] {
				t.Errorf("dragontls has no setting %s", name)
			}
		}
	}
	if seen < 4 {
		t.Errorf("found %d settings", seen)
	}
}
