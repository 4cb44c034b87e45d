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
	type chapter struct {
		*backendReport
		Sections []section
	}
	data := struct {
		*report
		Style        template.CSS
		Where, Names string
		Chapters     []chapter
	}{report: rep, Style: chartStyle, Where: rep.Machine.describe(), Names: rep.backends()}
	for _, one := range rep.Backends {
		c := chapter{backendReport: one}
		for n := range one.Rows {
			r := &one.Rows[n]
			s := section{Row: r, Lines: one.lines(r)}
			for _, drawn := range one.charts(r) {
				s.Charts += template.HTML(drawing([]chart{drawn}, false)) // made here, every text in it is escaped
			}
			c.Sections = append(c.Sections, s)
		}
		data.Chapters = append(data.Chapters, c)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
