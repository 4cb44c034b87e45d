package command

import (
	"maps"
	"slices"
	"strings"
)

// Unlisted is an entry of a list of commands that names none of Dragonfly v1.40.1 and of Redis 7.0.15: a command of a module
// or of a later version, or a typing error.
type Unlisted struct {
	Name    string // NAME or NAME|SUBCOMMAND, in upper case
	Nearest string // the known name that was most likely meant, or empty
}

func (u Unlisted) String() string {
	if u.Nearest == "" {
		return u.Name
	}
	return u.Name + " (did you mean " + u.Nearest + "?)"
}

// UnlistedNames returns the entries of list, NAME or NAME|SUBCOMMAND, whose command is not known, and those whose subcommand
// looks like a typing error for one of that command. Entries of another form, such as @category, do not count.
func UnlistedNames(list []string) (unlisted []Unlisted) {
	c := theCatalogue()
	for _, entry := range list {
		full := strings.ToUpper(strings.TrimSpace(entry))
		name, sub, hasSub := strings.Cut(full, "|")
		if name == "" || name[0] == '@' {
			continue
		}
		r := c.rows[name]
		switch {
		case r == nil:
			near := nearest(name, c.names, slipsIn(name))
			if near != "" && hasSub {
				near += "|" + sub
			}
			unlisted = append(unlisted, Unlisted{full, near})
		case hasSub && r.subs != nil && r.subs[sub] == nil:
			// A backend may have more subcommands than the two lists, so that one like no other is taken as meant.
			if near := nearest(sub, slices.Sorted(maps.Keys(r.subs)), slipsIn(sub)); near != "" {
				unlisted = append(unlisted, Unlisted{full, name + "|" + near})
			}
		}
	}
	return unlisted
}

// slipsIn returns how many slips a typing error may have: two, and fewer where they could replace all of a short name.
func slipsIn(name string) int { return min(2, len(name)-2) }

// nearestCategory returns the name of the category that takes the fewest slips to become to.
func (c *catalogue) nearestCategory(to string) string {
	names := append(slices.Collect(maps.Keys(c.bits)), "all")
	slices.Sort(names)
	return nearest(to, names, maxName)
}

// nearest returns the first of the names that the fewest slips turn into to, or "" if that takes more than most.
func nearest(to string, names []string, most int) (name string) {
	best := most + 1
	for _, n := range names {
		if d := slips(n, to); d < best {
			name, best = n, d
		}
	}
	return name
}

// slips counts the insertions, deletions, replacements and swaps of neighbours that turn a into b. Of b only the first
// maxName bytes count.
func slips(a, b string) int {
	b = b[:min(len(b), maxName)]
	before, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
