package config

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func (l *loader) refuseUnknown() {
	var known []string
	for _, f := range fields() {
		known = append(known, f.Tag.Get("env"))
	}
	for _, variable := range slices.Sorted(maps.Keys(l.values)) {
		name := strings.TrimPrefix(variable, Prefix)
		_, fromFile := l.origins[variable]
		if _, ok := fieldOf(name); ok || !fromFile && fromKubernetes(variable, l.values[variable]) {
			continue
		}
		cure := "remove it"
		if near := Nearest(name, known); near != "" {
			cure = "did you mean " + Prefix + near + "?"
		}
		l.refuse(name, "no variable of this version", cure)
		delete(l.values, variable) // env would take "DRAGONTLS_" for fields without a name
	}
}

var (
	serviceForm = regexp.MustCompile(`_(?:(SERVICE_HOST)|(SERVICE_PORT(?:_[A-Z0-9_]+)?)|(PORT|PORT_[0-9]+_(?:TCP|UDP|SCTP))|PORT_[0-9]+_(?:TCP|UDP|SCTP)_(?:(PROTO)|(PORT)|(ADDR)))$`)
	linkForm    = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// fromKubernetes reports whether a variable is one that Kubernetes sets in every
// pod for a service whose name begins with "dragontls". The value must fit too, so
// that DRAGONTLS_LISTEN_PORT=6380, which somebody meant, stays a fault.
func fromKubernetes(variable, value string) bool {
	m := serviceForm.FindStringSubmatch(variable)
	switch {
	case m == nil:
		return false
	case m[1] != "" || m[6] != "":
		_, err := netip.ParseAddr(value)
		return err == nil
	case m[2] != "" || m[5] != "":
		return validPort(value)
	case m[3] != "":
		return linkForm.MatchString(value)
	default:
		return value == "tcp" || value == "udp" || value == "sctp"
	}
}

func validPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// Nearest is the known name at most two typing slips away, or "".
func Nearest(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := slips(name, k); d < least && d < len(k)/2 {
			best, least = k, d
		}
	}
	return best
}

// slips counts insertions, deletions, replacements and swaps of neighbours that
// turn a into b.
func slips(a, b string) int {
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
