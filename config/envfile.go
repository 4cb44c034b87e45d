package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// EnvFile is a file of NAME=VALUE lines, as `serve --env-file` reads it. Nothing modifies it after ReadEnvFile. A nil *EnvFile
// sets nothing.
type EnvFile struct {
	path    string
	open    bool // every user of this machine may read it
	set     map[string]fileValue
	ignored []string // names that are not ours, in order
	faults  Faults
}

// fileValue is what a line of the file says.
type fileValue struct {
	value string
	line  int
}

// maxEnvFile bounds the file, in bytes: all variables together need a few KiB.
const maxEnvFile = 1 << 20

const (
	acceptedLine = "NAME=VALUE, the value in quotes or not, or a comment that begins with #"
	cureOfValue  = "put the value between single quotes, without a comment after it; a value that holds single quotes, or both quotes, goes into the file of a _FILE variable"
)

// ReadEnvFile reads the file of that name; an empty name is no file, and returns nil. What is wrong with the file is among the faults
// of LoadWith.
func ReadEnvFile(path string) *EnvFile {
	if path == "" {
		return nil
	}
	f := &EnvFile{path: path, set: map[string]fileValue{}}
	text, err := f.read()
	if err != nil {
		f.faults = Faults{{Variable: "--env-file", Value: path, Accepted: "a readable file: " + withoutPath(err).Error(), File: path}}
		return f
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		f.parse(number, strings.TrimSpace(line))
	}
	return f
}

func (f *EnvFile) read() (string, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file, and it is read more than once")
	}
	f.open = info.Mode().Perm()&0o004 != 0
	text, err := io.ReadAll(io.LimitReader(file, maxEnvFile+1))
	if err == nil && len(text) > maxEnvFile {
		err = fmt.Errorf("it is longer than %d bytes", maxEnvFile)
	}
	return string(text), err
}

// parse takes a line without the blanks around it. The readers of such files (systemd, docker, compose, shells) disagree on what $, \,
// # and quotes within a value mean, and godotenv would replace some of them without a word: such a value is a fault, since a password
// that was changed in silence is hard to find.
func (f *EnvFile) parse(number int, line string) {
	if line == "" || line[0] == '#' {
		return
	}
	all, err := godotenv.Unmarshal(line)
	before, raw, ok := strings.Cut(line, "=")
	name := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(before), "export "))
	value, named := all[name]
	if !ok || !named && err == nil || name == "" || strings.ContainsFunc(name, notInName) {
		f.refuse(number, "", acceptedLine, "") // nothing of the line is shown: it may be half of a secret
		return
	}
	raw = strings.TrimSpace(raw)
	if err != nil || len(all) > 1 || raw != value && raw != "'"+value+"'" && raw != `"`+value+`"` {
		f.refuse(number, name, "a value that every reader of such files takes alike: in this one a quote, $, \\ or # may mean something", cureOfValue)
		return
	}
	if !strings.HasPrefix(name, Prefix) {
		f.ignored = append(f.ignored, name)
		return
	}
	if first, twice := f.set[name]; twice {
		f.refuse(number, name, fmt.Sprintf("set only once, and line %d sets it too", first.line), "remove one of the lines")
		return
	}
	f.set[name] = fileValue{value, number}
}

func notInName(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// refuse notes a fault of a line. name is empty where the line has none.
func (f *EnvFile) refuse(number int, name, accepted, cure string) {
	fault := Fault{Variable: name, Accepted: accepted, Cure: cure, Hidden: true, Origin: f.origin(number)}
	if name == "" {
		fault.Variable, fault.Origin = fault.Origin, ""
	}
	f.faults = append(f.faults, fault)
}

func (f *EnvFile) origin(line int) string { return fmt.Sprintf("%s:%d", f.path, line) }

// Value returns what the file says of the variable with that short name, or an empty string. It is for what is needed before Load.
func (f *EnvFile) Value(name string) string {
	if f == nil {
		return ""
	}
	return f.set[Prefix+name].value
}

// addFile adds what the file sets and the environment does not.
func (l *loader) addFile(f *EnvFile) {
	if f == nil {
		return
	}
	l.faults = append(l.faults, f.faults...)
	l.origins = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(f.set)) {
		from := f.set[name]
		value, both := l.values[name]
		if !both {
			l.values[name], l.origins[name] = from.value, f.origin(from.line)
		} else if value != from.value {
			l.note(NoteEnvFileOverridden, strings.TrimPrefix(name, Prefix), "in %s is not used: the environment sets it too, and wins", f.origin(from.line))
		}
	}
	if len(f.ignored) > 0 {
		l.note(NoteEnvFileIgnored, "", "%s: %s: only variables that begin with %s are read from the file; set others in the environment",
			f.path, strings.Join(f.ignored, ", "), Prefix)
	}
}

// checkFileMode warns of a secret that every user of this machine may read in the file.
func (l *loader) checkFileMode(f *EnvFile) {
	if f == nil || !f.open {
		return
	}
	for _, field := range fields() {
		name := field.Tag.Get("env")
		if _, from := l.origins[Prefix+name]; !from || !l.explicit[name] {
			continue
		}
		switch {
		case name == "BACKEND_URL" && l.config.Backend.Password == "" && !l.faulty[name]:
		case field.Tag.Get("secret") == "" || field.Tag.Get("oneof") != "":
		default:
			l.note(NoteEnvFileMode, name, "is a secret in %s, which every user of this machine may read", f.path)
		}
	}
}
