package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Variable describes one environment variable.
type Variable struct {
	Name    string // without Prefix
	Default string // as shown to people; empty: unset
	Doc     string // 'x' marks code
	Secret  bool   // its value is never shown
	Twin    string // the variable that names a file with the value instead; or empty
	Live    bool   // a change in the file of --env-file takes effect while dragontls runs
}

// Variables lists what Load knows, in the order of Config. Twins are not listed
// on their own.
func Variables() []Variable {
	var list []Variable
	for _, f := range fields() {
		doc := f.Tag.Get("doc")
		if doc == "" {
			continue // a twin
		}
		v := Variable{
			Name:    f.Tag.Get("env"),
			Default: f.Tag.Get("envDefault"),
			Doc:     doc,
			Secret:  f.Tag.Get("secret") != "",
			Twin:    f.Tag.Get("twin"),
			Live:    isLive(f),
		}
		switch {
		case f.Tag.Get("shown") != "":
			v.Default = f.Tag.Get("shown")
		case f.Tag.Get("required") != "":
			v.Default = "required"
		case v.Default != "":
			v.Default = "'" + v.Default + "'"
		}
		list = append(list, v)
	}
	return list
}

// Table is the markdown table of Variables, for docs/settings.md.
func Table() string {
	var b strings.Builder
	b.WriteString("| variable | default | changes | meaning |\n|---|---|---|---|\n")
	for _, v := range Variables() {
		names := "`" + Prefix + v.Name + "`"
		if v.Twin != "" {
			names += ", `" + Prefix + v.Twin + "`"
		}
		// Each item a code span of its own, so that a long list can wrap.
		items := strings.ReplaceAll(v.Default, ",", "', '")
		changes := "restart"
		if v.Live {
			changes = "live"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", names, markdown(items), changes, markdown(v.Doc))
	}
	return b.String()
}

func markdown(s string) string {
	return strings.NewReplacer("'", "`", "|", `\|`).Replace(s)
}

// fields lists the fields of Config that are variables.
func fields() []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(reflect.TypeFor[Config]()), func(f reflect.StructField) bool {
		return f.Tag.Get("env") == "-"
	})
}

func fieldOf(name string) (reflect.StructField, bool) {
	for _, f := range fields() {
		if f.Tag.Get("env") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// order is the place of a variable in Config; unknown ones come first.
func order(variable string) int {
	return slices.IndexFunc(fields(), func(f reflect.StructField) bool {
		return Prefix+f.Tag.Get("env") == variable
	})
}
