package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// reloadRun is dragonfly-tls/reload.sh with a redis-cli and a sleep of the test's own. Each line of turns is shell that runs
// when the script sleeps; after the last one its loop ends.
func reloadRun(t *testing.T, turns ...string) (calls, output string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.ReplaceAll(read(t, "kubernetes/dragonfly-tls/reload.sh"), "/run/secrets/server", dir)
	write("reload.sh", script, 0o644)
	write("one.crt", "-----END CERTIFICATE-----\none\n", 0o644)
	write("two.crt", "-----END CERTIFICATE-----\ntwo\n", 0o644)
	write("tls.key", "-----END PRIVATE KEY-----\n", 0o644)
	write("answer", "OK", 0o644)
	write("info", "tls_cert_subject:/CN=a", 0o644)
	write("redis-cli", "#!/bin/sh\ncd "+dir+"\necho \"$3 $4\" >>calls\ncase $3 in CONFIG) cat answer ;; INFO) cat info ;; esac\n", 0o755)
	sleep := "#!/bin/sh\ncd " + dir + "\necho >>turns\necho turn >>calls\ncase $(wc -l <turns) in\n"
	for i, turn := range turns {
		sleep += strings.Repeat(" ", 2) + string(rune('1'+i)) + ") " + turn + " ;;\n"
	}
	write("sleep", sleep+"  *) exit 1 ;;\nesac\n", 0o755)
	cmd := exec.Command("sh", filepath.Join(dir, "reload.sh"))
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	log, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(string(log), " ", "_")), " "), string(out)
}

func TestDragonflyIsAskedToReloadWhenItsFilesChange(t *testing.T) {
	t.Parallel()
	const reload = " CONFIG_SET INFO_server"
	for _, c := range []struct {
		name, want, output string
		turns              []string
	}{
		{"once at start, and once for each change", "turn" + reload + " turn turn" + reload + " turn turn", "new certificate is served",
			[]string{"cp one.crt tls.crt", ":", "cp two.crt tls.crt", ":"}},
		{"not for half a file", "turn turn turn" + reload + " turn", "new certificate is served",
			[]string{"echo half >tls.crt", ":", "cp one.crt tls.crt"}},
		{"not for half a key", "turn turn turn" + reload + " turn", "new certificate is served",
			[]string{"cp one.crt tls.crt; echo half >tls.key", ":", "echo '-----END PRIVATE KEY-----' >tls.key"}},
		{"until the key fits", "turn" + reload + " turn" + reload + " turn turn", "do not match",
			[]string{"cp one.crt tls.crt; : >info", "echo tls_cert_subject >info", ":"}},
		{"until it answers", "turn CONFIG_SET turn" + reload + " turn turn", "does not answer yet",
			[]string{"cp one.crt tls.crt; : >answer", "echo OK >answer", ":"}},
		{"not again for files that it refuses", "turn CONFIG_SET turn turn" + reload + " turn", "keeps its old certificate",
			[]string{"cp one.crt tls.crt; echo 'ERR CONFIG SET failed' >answer", ":", "cp two.crt tls.crt; echo OK >answer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			calls, output := reloadRun(t, c.turns...)
			if calls != c.want || !strings.Contains(output, c.output) {
				t.Errorf("asked %q, want %q; output\n%s", calls, c.want, output)
			}
		})
	}
}
