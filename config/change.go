package config

import "reflect"

// Change is a variable that says something else than before.
type Change struct {
	Variable string // full name
	Live     bool   // it takes effect at once; otherwise after a restart
}

// Follow returns c with the variables of next that take effect while dragontls runs, and lists all in which next differs from c.
func (c Config) Follow(next Config) (Config, []Change) {
	var changes []Change
	mine, theirs := reflect.ValueOf(&c).Elem(), reflect.ValueOf(&next).Elem()
	for _, f := range fields() {
		if reflect.DeepEqual(mine.FieldByIndex(f.Index).Interface(), theirs.FieldByIndex(f.Index).Interface()) {
			continue
		}
		if f.Name == "Backend" && c.BackendURLFile != "" && c.BackendURLFile == next.BackendURLFile {
			continue // the file has changed, which is read again at every use
		}
		live := isLive(f)
		changes = append(changes, Change{Prefix + f.Tag.Get("env"), live})
		if live {
			mine.FieldByIndex(f.Index).Set(theirs.FieldByIndex(f.Index))
		}
	}
	c.Notes = next.Notes
	return c, changes
}

func isLive(f reflect.StructField) bool { return f.Tag.Get("changes") == "live" }
