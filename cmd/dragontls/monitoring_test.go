//go:build unix

package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const (
	alertsFile    = "../../config/deploy/prometheus/alerts.yml"
	dashboardFile = "../../config/deploy/grafana/dashboards/dragontls.json"
)

type alertRule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alertRules(t *testing.T) (rules []alertRule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal([]byte(read(t, alertsFile)), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 15 {
		t.Fatalf("%d alerts", len(rules))
	}
	return rules
}

// Each alert asks for metrics that exist, has a severity, a summary and a description that leads to a page of the manual, and a
// row in the table of the manual; and each row is of an alert and says how grave it is.
func TestAlerts(t *testing.T) {
	t.Parallel()
	code, reasons := seriesInCode(t), reasonsInCode(t)
	_, rest, _ := strings.Cut(read(t, "../../config/docs/operations.md"), "<!-- alerts -->\n")
	table, _, _ := strings.Cut(rest, "<!-- /alerts -->")
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(table, -1) {
		rows[m[1]] = m[2]
	}
	tested := read(t, strings.Replace(alertsFile, ".yml", "_test.yml", 1))
	rules := alertRules(t)
	for _, r := range rules {
		_, faults := judgeQuery(code, reasons, r.Expr, r.Annotations["summary"]+r.Annotations["description"])
		for _, fault := range faults {
			t.Errorf("%s: %s", r.Alert, fault)
		}
		if rows[r.Alert] != r.Labels["severity"] || !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s is %q, and %q in the table of config/docs/operations.md", r.Alert, r.Labels["severity"], rows[r.Alert])
		}
		delete(rows, r.Alert)
		if !strings.Contains(r.Annotations["summary"], "{{ $labels.instance }}") {
			t.Errorf("the summary of %s does not say where: %q", r.Alert, r.Annotations["summary"])
		}
		wantLeads(t, r.Alert, r.Annotations["description"])
		if !regexp.MustCompile(`alertname="` + r.Alert + `", alertstate="firing"\}\)\n *eval_time: \w+\n *exp_samples:\n`).MatchString(tested) {
			t.Errorf("no unit test has %s fire", r.Alert)
		}
	}
	for row := range rows {
		t.Errorf("the table of config/docs/operations.md has %s, and there is no such alert", row)
	}
}

// wantLeads wants that a description ends with a page of the manual, and with a heading of it if it names one.
func wantLeads(t *testing.T, alert, description string) {
	t.Helper()
	m := regexp.MustCompile(`\. Manual: (config/docs/\w+\.md)(?:#([a-z-]+))?$`).FindStringSubmatch(description)
	if m == nil {
		t.Errorf("the description of %s names no page of the manual: %s", alert, description)
		return
	}
	page := strings.ToLower(read(t, "../../"+m[1]))
	if m[2] != "" && !strings.Contains(page, "\n## "+strings.ReplaceAll(m[2], "-", " ")+"\n") {
		t.Errorf("%s: %s has no heading %s", alert, m[1], m[2])
	}
}

// panel is what is read of a dashboard's panels.
type panel struct {
	Title, Type, Description string
	Targets                  []struct{ Expr, LegendFormat string }
}

func dashboardPanels(t *testing.T) (panels []panel) {
	t.Helper()
	var d struct {
		Panels []panel
	}
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		if p.Type != "row" {
			panels = append(panels, p)
		}
	}
	if len(panels) < 25 {
		t.Fatalf("%d panels", len(panels))
	}
	return panels
}

func dashboardTexts(t *testing.T) (texts []string) {
	t.Helper()
	for _, p := range dashboardPanels(t) {
		for _, target := range p.Targets {
			texts = append(texts, target.Expr)
		}
	}
	return texts
}

// The dashboard shows exactly the metrics that exist.
func TestDashboardShowsEveryMetric(t *testing.T) {
	t.Parallel()
	code, reasons := seriesInCode(t), reasonsInCode(t)
	shown := map[string]bool{}
	for _, p := range dashboardPanels(t) {
		if p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("%s has no description, or shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			names, faults := judgeQuery(code, reasons, target.Expr, target.LegendFormat)
			for _, name := range names {
				shown[name] = true
			}
			for _, fault := range faults {
				t.Errorf("%s: %s", p.Title, fault)
			}
		}
	}
	for name := range code {
		if !shown[name] {
			t.Errorf("no panel shows dragontls_%s", name)
		}
	}
}

// promtool loads the configuration and the rules, and runs their tests; and it parses every query of the dashboard.
func TestPromtoolAcceptsTheRules(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(alertsFile))); err != nil {
		t.Fatal(err)
	}
	// promtool looks for the token.
	write(t, filepath.Join(dir, "token"), []byte("token"))
	configuration := filepath.Join(dir, "prometheus.yml")
	write(t, configuration, []byte(strings.Replace(read(t, configuration), "/secrets/metrics-token.prometheus", filepath.Join(dir, "token"), 1)))
	queries := map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": dashboardRules(t)}}}
	asRules, err := json.Marshal(queries) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "dashboard.yml"), asRules)
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "alerts.yml", "dashboard.yml"},
		{"test", "rules", "alerts_test.yml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "SUCCESS") {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// dashboardRules makes a recording rule of each query, with values in place of Grafana's variables.
func dashboardRules(t *testing.T) (rules []any) {
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", "dragontls", "$instance", ".*")
	for i, expr := range dashboardTexts(t) {
		rules = append(rules, map[string]string{"record": "panel:" + strconv.Itoa(i), "expr": variables.Replace(expr)})
	}
	return rules
}

// The files that Grafana reads agree with one another and with docker-compose.yml.
func TestGrafanaFindsItsFiles(t *testing.T) {
	t.Parallel()
	const deploy = "../../config/deploy/grafana"
	compose := read(t, "../../docker-compose.yml")
	wantParts(t, compose, "./config/deploy/grafana/provisioning:/etc/grafana/provisioning:ro", "./config/deploy/grafana/dashboards:/etc/dragontls/dashboards:ro",
		"./config/deploy/prometheus:/etc/prometheus:ro", "HOME_DASHBOARD_PATH: /etc/dragontls/dashboards/dragontls.json",
		`"127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"`, `"127.0.0.1:${GRAFANA_PORT:-3000}:3000"`, "${ADMIN_LISTEN:-127.0.0.1:9380}")
	wantParts(t, read(t, deploy+"/provisioning/dashboards/dragontls.yml"), "path: /etc/dragontls/dashboards}")
	wantParts(t, read(t, deploy+"/provisioning/datasources/prometheus.yml"), "url: http://prometheus:9090\n", "type: prometheus\n")
	files := 0
	err := filepath.WalkDir(deploy, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".json") {
			return err
		}
		files++
		var file map[string]any
		if err := yaml.Unmarshal([]byte(read(t, path)), &file); err != nil || file["apiVersion"] != 1 {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil || files != 2 {
		t.Errorf("%d files: %v", files, err)
	}
}
