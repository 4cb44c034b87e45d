package proxytest

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

type aclUser struct {
	on, nopass bool
	passwords  []string
	rules      []string // "+@all", "-get", ...: the last that names the command decides
	keys       []string // glob patterns
	db         int      // where AUTH puts a connection
}

func (d *Dragonfly) setUpUsers() {
	all := func() *aclUser { return &aclUser{on: true, rules: []string{"+@all"}, keys: []string{"*"}} }
	d.users = map[string]*aclUser{"default": all()}
	if p := d.opt.RequirePass; p != "" {
		d.users["default"].passwords = []string{p}
	} else {
		d.users["default"].nopass = true
	}
	for _, u := range d.opt.Users {
		a := d.users[u.Name]
		if a == nil || u.Name != "default" {
			a = all()
			a.nopass = u.Password == ""
			if !a.nopass {
				a.passwords = []string{u.Password}
			}
		}
		a.db = u.Database
		for _, name := range u.Deny {
			a.rules = append(a.rules, "-"+strings.ToLower(name))
		}
		d.users[u.Name] = a
	}
}

// login leaves a connection as it was when it fails. When it succeeds it also changes the database, as Redis does not.
func (c *conn) login(name, password string) bool {
	u := c.d.users[name]
	if u == nil || !u.on || !u.nopass && !slices.Contains(u.passwords, password) {
		return false
	}
	c.user, c.authed, c.db = name, true, u.db
	return true
}

func (d *Dragonfly) allowed(name string, f call) bool {
	u := d.users[name]
	if u == nil {
		return false
	}
	ok := false
	for _, rule := range u.rules {
		if f.cmd.in(rule[1:]) {
			ok = rule[0] == '+'
		}
	}
	for _, k := range f.cmd.keys(f.args) {
		ok = ok && slices.ContainsFunc(u.keys, func(p string) bool { return glob(p, k) })
	}
	return ok
}

// in tells whether what an ACL rule names covers the command.
func (cmd *command) in(what string) bool {
	name := strings.ToLower(cmd.name)
	word, _, _ := strings.Cut(name, " ")
	switch what {
	case "@all":
		return true
	case "@read":
		return cmd.flags&read != 0
	case "@write":
		return cmd.flags&write != 0
	}
	return what == name || what == word
}

func cmdACL(_ *conn, _ [][]byte, r *reply) { r.fail("ERR Wrong number of arguments for acl command") }

func cmdWhoAmI(c *conn, _ [][]byte, r *reply) { r.bulk("User is " + c.user) }

func cmdACLSetUser(c *conn, args [][]byte, r *reply) {
	name := string(args[1])
	u := aclUser{}
	if old := c.d.users[name]; old != nil {
		u = aclUser{old.on, old.nopass, slices.Clone(old.passwords), slices.Clone(old.rules), slices.Clone(old.keys), old.db}
	}
	for _, a := range args[2:] {
		if !u.apply(c.d, string(a)) {
			r.fail("ERR Unrecognized parameter " + upper(a))
			return
		}
	}
	c.d.users[name] = &u // open connections of the user live on, also when it is off
	r.ok()
}

func (u *aclUser) apply(d *Dragonfly, rule string) bool {
	low := strings.ToLower(rule)
	switch {
	case low == "on", low == "off":
		u.on = low == "on"
	case low == "nopass":
		u.nopass, u.passwords = true, nil
	case low == "resetpass":
		u.nopass, u.passwords = false, nil
	case low == "allkeys":
		u.keys = []string{"*"}
	case rule == "":
		return false
	case rule[0] == '>':
		u.nopass, u.passwords = false, append(u.passwords, rule[1:])
	case rule[0] == '<':
		u.passwords = slices.DeleteFunc(u.passwords, func(p string) bool { return p == rule[1:] })
	case rule[0] == '~':
		u.keys = append(u.keys, rule[1:])
	case rule[0] == '&':
	case rule[0] == '+' || rule[0] == '-':
		what := low[1:]
		known := what == "@all" || what == "@read" || what == "@write" || d.commands[strings.ToUpper(what)] != nil
		if !known {
			return false
		}
		if what == "@all" {
			u.rules = nil
		}
		u.rules = append(u.rules, low)
	default:
		return false
	}
	return true
}

func cmdACLDelUser(c *conn, args [][]byte, r *reply) {
	n := 0
	for _, a := range args[1:] {
		name := string(a)
		if name == "default" || c.d.users[name] == nil {
			continue
		}
		n++
		delete(c.d.users, name)
		for _, o := range c.d.conns {
			if o.user == name {
				o.kill()
			}
		}
	}
	r.int(n)
}

func cmdACLUsers(c *conn, _ [][]byte, r *reply) {
	r.array(len(c.d.users))
	for _, name := range sortedKeys(c.d.users) {
		r.simple(name) // raw: a name with CR LF breaks the reader
	}
}

func cmdACLList(c *conn, _ [][]byte, r *reply) {
	r.array(len(c.d.users))
	for _, name := range sortedKeys(c.d.users) {
		r.simple(c.d.users[name].describe(name))
	}
}

func (u *aclUser) describe(name string) string {
	parts := []string{"user", name, "off"}
	if u.on {
		parts[2] = "on"
	}
	secrets := u.passwords
	if u.nopass {
		secrets = []string{""}
	}
	var sums []string
	for _, p := range secrets {
		sum := sha256.Sum256([]byte(p))
		sums = append(sums, "#"+hex.EncodeToString(sum[:])[:15])
	}
	slices.Sort(sums)
	parts = append(parts, sums...)
	for _, k := range u.keys {
		parts = append(parts, "~"+k)
	}
	parts = append(parts, "&*")
	if len(u.rules) == 0 || u.rules[0] != "+@all" {
		parts = append(parts, "-@all")
	}
	parts = append(parts, u.rules...)
	return strings.Join(append(parts, "$all"), " ")
}

func cmdACLGetUser(c *conn, args [][]byte, r *reply) {
	u := c.d.users[string(args[1])]
	if u == nil {
		r.null()
		return
	}
	list := func(name string, items ...string) {
		r.simple(name)
		r.array(len(items))
		for _, s := range items {
			r.simple(s)
		}
	}
	state := "off"
	if u.on {
		state = "on"
	}
	r.pairs(5)
	list("flags", state)
	list("passwords")
	r.simple("commands")
	r.simple(strings.Join(u.rules, " "))
	r.simple("keys")
	r.simple("~" + strings.Join(u.keys, " ~"))
	r.simple("channels")
	r.simple("&*")
}

func cmdACLCat(_ *conn, args [][]byte, r *reply) {
	if len(args) > 1 {
		r.fail("ERR Unknown category: " + upper(args[1]))
		return
	}
	r.array(0)
}

func cmdACLDryRun(c *conn, args [][]byte, r *reply) {
	if c.d.users[string(args[1])] == nil {
		r.fail("ERR User '" + string(args[1]) + "' not found")
		return
	}
	cmd := c.d.commands[upper(args[2])]
	if cmd == nil {
		r.fail("ERR Command '" + string(args[2]) + "' not found")
		return
	}
	if !c.d.allowed(string(args[1]), call{cmd, args[2:]}) {
		r.bulk("This user has no permissions to run the '" + cmd.name + "' command")
		return
	}
	r.ok()
}

func cmdACLLog(_ *conn, args [][]byte, r *reply) {
	if len(args) > 1 {
		r.ok()
		return
	}
	r.array(0)
}

func cmdACLFile(_ *conn, _ [][]byte, r *reply) {
	r.fail("ERR Dragonfly is not configured to use an ACL file.")
}
