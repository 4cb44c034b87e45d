package statuspage

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fieldsOf adds the path of each field of t in JSON to all.
func fieldsOf(t reflect.Type, path string, all map[string]bool) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		all[path] = true
	case t.Kind() == reflect.Pointer:
		fieldsOf(t.Elem(), path, all)
	case t.Kind() == reflect.Slice:
		fieldsOf(t.Elem(), path+"[]", all)
	case t.Kind() == reflect.Map:
		fieldsOf(t.Elem(), path+".*", all)
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous:
				fieldsOf(f.Type, path, all)
			case name != "-":
				fieldsOf(f.Type, strings.TrimPrefix(path+"."+name, "."), all)
			}
		}
	default:
		all[path] = true
	}
}

// The manual names each field of /status.json, with its meaning, and no other; and each key by which sessions are sorted.
func TestManualHasEveryField(t *testing.T) {
	text, err := os.ReadFile("../../../config/docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	code, documented := map[string]bool{}, map[string]bool{}
	fieldsOf(reflect.TypeFor[Status](), "", code)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|([^|]*)\\| ([^|]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		if documented[m[1]] {
			t.Errorf("%s has two rows", m[1])
		}
		documented[m[1]] = true
		if strings.TrimSpace(m[3]) == "" {
			t.Errorf("%s has no meaning", m[1])
		}
	}
	if len(code) < 90 {
		t.Fatalf("%d fields in the code: the search misses some", len(code))
	}
	for field := range code {
		if !documented[field] {
			t.Errorf("%s is not documented", field)
		}
	}
	for field := range documented {
		if !code[field] {
			t.Errorf("%s is documented, and there is no such field", field)
		}
	}
	for _, key := range SortKeys() {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("the key %s is not documented", key)
		}
	}
}
