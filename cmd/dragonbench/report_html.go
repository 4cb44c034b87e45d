package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"os"
)

//go:embed report.html
var page string

// writeHTML writes one file that needs no other.
func (rep *report) writeHTML(path string) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return err
	}
	type section struct {
		Row    *row
		Charts template.HTML
		Lines  []line
	}
	data := struct {
		*report
		Style    template.CSS
		Where    string
		Sections []section
	}{report: rep, Style: chartStyle, Where: rep.Machine.describe()}
	for n := range rep.Rows {
		r := &rep.Rows[n]
		s := section{Row: r, Lines: rep.lines(r)}
		for _, c := range rep.charts(r) {
			s.Charts += template.HTML(drawing([]chart{c}, false)) // made here, every text in it is escaped
		}
		data.Sections = append(data.Sections, s)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
