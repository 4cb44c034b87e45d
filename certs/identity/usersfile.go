package identity

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds of a users file: 10,000 rules of about 100 bytes.
const (
	maxFileSize = 1 << 20
	maxRules    = 10000
)

// ParseUsers parses the content of a users file. path names it in errors, and
// relative password files start in its directory. The error is a *Faults; beside it
// are the rules that have none, so that they can be judged in the same round.
func ParseUsers(path string, data []byte) (*Users, error) {
	p := &usersParser{faults: &Faults{File: path}, dir: filepath.Dir(path), seen: make(map[string]int)}
	u := &Users{}
	if root := p.document(data); root != nil {
		u.rules = p.users(root)
	}
	lists := make([][]Pattern, len(u.rules))
	for i, r := range u.rules {
		lists[i] = r.patterns
	}
	u.index = newIndex(lists)
	if len(p.faults.List) > 0 {
		return u, p.faults
	}
	return u, nil
}

// usersParser turns nodes into rules and collects what is wrong.
type usersParser struct {
	faults *Faults
	dir    string
	seen   map[string]int // the line of the rule with these patterns
}

const usersForm = `write users: [{match: [...], user: NAME, password_file: PATH}]`

func (p *usersParser) users(root *yaml.Node) (rules []*Rule) {
	missing := true
	p.mapping(root, "the file", usersForm, fields{"users": func(n *yaml.Node) {
		missing = false
		items := p.sequence(n, "users", "write one rule at least: without any, every client is refused")
		if len(items) > maxRules {
			p.faults.add(n.Line, "", "%d rules: more than %d", len(items), maxRules)
			return
		}
		for i, item := range items {
			known := p.faults.count()
			if rule := p.rule(item, i+1); p.faults.count() == known {
				rules = append(rules, rule)
			}
		}
	}})
	if missing && root.Kind == yaml.MappingNode {
		p.faults.add(root.Line, usersForm, "the file has no users")
	}
	return rules
}

const ruleKeys = "a rule has match, user, password_file or password_env, client_auth, allow, deny, dry_run"

func (p *usersParser) rule(n *yaml.Node, number int) *Rule {
	r := &Rule{Line: n.Line, dir: p.dir}
	what := fmt.Sprintf("rule %d: ", number)
	given := make(map[string]int) // the line of each key
	note := func(key string, read func(*yaml.Node)) func(*yaml.Node) {
		return func(n *yaml.Node) { given[key] = n.Line; read(n) }
	}
	ok := p.mapping(n, strings.TrimSuffix(what, ": "), ruleKeys, fields{
		"match":         note("match", func(n *yaml.Node) { r.patterns = p.patterns(n, what) }),
		"user":          note("user", func(n *yaml.Node) { r.User = p.user(n, what) }),
		"password_file": note("password_file", func(n *yaml.Node) { r.passwordFile = p.text(n, what+"password_file") }),
		"password_env":  note("password_env", func(n *yaml.Node) { r.passwordEnv = p.env(n, what) }),
		"client_auth":   func(n *yaml.Node) { r.ClientAuth = p.boolean(n, what+"client_auth") },
		"dry_run":       func(n *yaml.Node) { r.DryRun = p.boolean(n, what+"dry_run") },
		"allow":         func(n *yaml.Node) { r.Allow = p.commands(n, what+"allow") },
		"deny":          func(n *yaml.Node) { r.Deny = p.commands(n, what+"deny") },
	})
	if !ok {
		return r
	}
	for _, key := range []string{"match", "user"} {
		if given[key] == 0 {
			p.faults.add(n.Line, "", "%s%s is missing", what, key)
		}
	}
	file, env := given["password_file"], given["password_env"]
	if (file == 0) == (env == 0) {
		p.faults.add(max(file, env, n.Line), "name one of them", "%sone of password_file and password_env is needed", what)
	}
	p.placeholders(r, what, file)
	p.repeated(r, what)
	return r
}

func (p *usersParser) placeholders(r *Rule, what string, line int) {
	if strings.Contains(r.passwordFile, cnPlaceholder) {
		p.faults.add(line, "write "+userPlaceholder+": the user that came of it", "%spassword_file holds %s", what, cnPlaceholder)
	}
	if strings.Contains(r.passwordFile, userPlaceholder) && r.User != "" && !r.Template() {
		p.faults.add(line, "write the path in full", "%spassword_file holds %s, but user is no template", what, userPlaceholder)
	}
}

// repeated finds a rule that an earlier one hides.
func (p *usersParser) repeated(r *Rule, what string) {
	if len(r.patterns) == 0 {
		return
	}
	key := strings.Join(canonical(r.patterns), "\n") // no pattern holds a line end
	if line, ok := p.seen[key]; ok {
		p.faults.add(r.Line, "remove one of the two", "%sit is never reached: the rule in line %d matches the same", what, line)
		return
	}
	p.seen[key] = r.Line
}

func (p *usersParser) patterns(n *yaml.Node, what string) (patterns []Pattern) {
	for _, item := range p.sequence(n, what+"match", "name one pattern at least") {
		text := p.text(item, what+"match")
		if text == "" {
			continue
		}
		pattern, err := ParsePattern(text)
		if err != nil {
			problem, cure, _ := strings.Cut(err.Error(), "\n")
			p.faults.add(item.Line, cure, "%s%s", what, problem)
			continue
		}
		patterns = append(patterns, pattern)
	}
	return patterns
}

var (
	literalUser  = regexp.MustCompile(`^[!-~]+$`)
	templateText = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
)

func (p *usersParser) user(n *yaml.Node, what string) string {
	user := p.text(n, what+"user")
	rest := strings.ReplaceAll(user, cnPlaceholder, "")
	switch {
	case user == "":
	case strings.ContainsAny(rest, "{}"):
		p.faults.add(n.Line, "the only placeholder is "+cnPlaceholder, "%suser holds a brace", what)
	case !literalUser.MatchString(user):
		p.faults.add(n.Line, "", "%suser holds a blank, a control character or something else than ASCII", what)
	case rest != user && !templateText.MatchString(rest):
		p.faults.add(n.Line, "use A-Z a-z 0-9 _ . - beside "+cnPlaceholder, "%sno user can come of this template", what)
	}
	return user
}

// Upper case only: a password in the wrong place is rarely that.
var envName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

func (p *usersParser) env(n *yaml.Node, what string) string {
	name := p.text(n, what+"password_env")
	if name != "" && !envName.MatchString(name) {
		p.faults.add(n.Line, "name an environment variable: A-Z 0-9 _", "%spassword_env is no name of a variable", what)
	}
	if strings.HasPrefix(name, "DRAGONTLS_") {
		p.faults.add(n.Line, "name another one: those are the proxy's own settings", "%spassword_env begins with DRAGONTLS_", what)
	}
	return name
}

var (
	commandForm  = regexp.MustCompile(`^[A-Z0-9._-]{1,64}(\|[A-Z0-9._-]{1,64})?$`)
	categoryForm = regexp.MustCompile(`^@[a-z]+$`)
)

func (p *usersParser) commands(n *yaml.Node, what string) (rules []string) {
	for _, item := range p.sequence(n, what, "leave it out to set no limit") {
		text := p.text(item, what)
		upper, lower := strings.ToUpper(text), strings.ToLower(text)
		switch {
		case text == "":
		case commandForm.MatchString(upper):
			rules = append(rules, upper)
		case categoryForm.MatchString(lower):
			rules = append(rules, lower)
		default:
			p.faults.add(item.Line, "write NAME, NAME|SUBCOMMAND or @category", "%s: %q is no rule for commands", what, cut(text, 100))
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}
