package proxytest

import (
	"crypto/sha1" // names scripts, as the protocol has it
	"encoding/hex"
	"strconv"
	"strings"
)

func sha1Hex(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func cmdEval(c *conn, args [][]byte, r *reply) { c.eval(string(args[1]), args[2:], r) }

func cmdEvalSha(c *conn, args [][]byte, r *reply) {
	body, known := c.d.scripts[strings.ToLower(string(args[1]))]
	if !known {
		r.fail("NOSCRIPT No matching script. Please use EVAL.")
		return
	}
	c.eval(body, args[2:], r)
}

func cmdScript(c *conn, args [][]byte, r *reply) {
	switch sub := upper(args[1]); {
	case sub == "LOAD" && len(args) == 3:
		r.bulk(c.remember(string(args[2])))
	case sub == "EXISTS" && len(args) > 2:
		r.array(len(args) - 2)
		for _, a := range args[2:] {
			n := 0
			if _, known := c.d.scripts[strings.ToLower(string(a))]; known {
				n = 1
			}
			r.int(n)
		}
	case sub == "FLUSH":
		c.d.scripts = map[string]string{}
		r.ok()
	default:
		r.unknownSub(sub, "SCRIPT")
	}
}

func (c *conn) remember(body string) string {
	sha := sha1Hex(body)
	if len(c.d.scripts) < c.d.opt.ScriptMax {
		c.d.scripts[sha] = body
	}
	return sha
}

// eval runs what is only a row of statements: redis.call(...), redis.pcall(...), error(...), redis.error_reply(...),
// redis.status_reply(...), a number or a string, each with or without return. Anything else is a syntax error.
func (c *conn) eval(body string, args [][]byte, r *reply) {
	n, err := strconv.Atoi(string(args[0]))
	if err != nil {
		r.fail(notInteger)
		return
	}
	if n < 0 || n > len(args)-1 {
		r.fail("ERR Number of keys can't be greater than number of args")
		return
	}
	sha := c.remember(body)
	l := &lua{src: body, keys: args[1 : 1+n], argv: args[1+n:]}
	for {
		st, more := l.statement()
		if l.bad {
			r.fail("ERR user_script:2: syntax error near '" + l.word + "'")
			return
		}
		if !more {
			r.null() // a script that returns nothing
			return
		}
		out := &reply{c: c}
		if text := c.step(st, l, out); text != "" {
			r.fail("ERR Error running script (call to " + sha + "): @user_script:2: " + text)
			return
		}
		if st.ret {
			r.b = append(r.b, out.b...)
			return
		}
	}
}

// step runs one statement; a text ends the script.
func (c *conn) step(st statement, l *lua, out *reply) string {
	first := ""
	if len(st.args) > 0 {
		first = string(st.args[0])
	}
	strip := strings.NewReplacer("\r", "", "\n", "")
	switch st.fn {
	case "error":
		return "user_script:2: " + first
	case "redis.error_reply":
		out.fail(strip.Replace(first))
		return ""
	case "redis.status_reply":
		out.simple(strip.Replace(first))
		return ""
	case "number":
		n, _ := strconv.Atoi(first)
		out.int(n)
		return ""
	case "string":
		out.bulk(first)
		return ""
	}
	if len(st.args) == 0 {
		return "Please specify at least one argument for redis.call()"
	}
	f, unknown := c.d.find(st.args)
	switch {
	case f.cmd == nil:
		return "-ERR unknown command `" + unknown + "`"
	case c.refusal(f) != "":
		return "-" + c.refusal(f)
	}
	for _, k := range f.cmd.keys(f.args) {
		if !l.declared(k) {
			return "-ERR script tried accessing undeclared key, key: " + k
		}
	}
	inExec := c.inExec
	c.inExec = f.cmd.name != "SELECT" // nothing blocks here, but SELECT works and stays
	c.perform(f, out)
	c.inExec = inExec
	if len(out.b) > 0 && out.b[0] == '-' && st.fn == "redis.call" {
		text := strings.TrimSuffix(string(out.b), "\r\n")
		out.b = nil
		return text
	}
	return ""
}

// statement is one call or value of a script.
type statement struct {
	ret  bool
	fn   string
	args [][]byte
}

type lua struct {
	src        string
	keys, argv [][]byte
	word       string // where it went wrong
	bad        bool
}

func (l *lua) declared(key string) bool {
	for _, k := range l.keys {
		if string(k) == key {
			return true
		}
	}
	return false
}

func (l *lua) skip() { l.src = strings.TrimLeft(l.src, " \t\r\n;") }

func (l *lua) take(prefix string) bool {
	l.skip()
	rest, ok := strings.CutPrefix(l.src, prefix)
	if ok {
		l.src = rest
	}
	return ok
}

func (l *lua) fail() {
	l.bad = true
	if words := strings.Fields(l.src); len(words) > 0 {
		l.word = words[min(1, len(words)-1)] // Lua complains about what follows a lone name
	}
}

func (l *lua) statement() (st statement, more bool) {
	if l.skip(); l.src == "" {
		return st, false
	}
	st.ret = l.take("return ")
	for _, fn := range []string{"redis.call", "redis.pcall", "redis.error_reply", "redis.status_reply", "error"} {
		if !l.take(fn + "(") {
			continue
		}
		st.fn = fn
		for !l.take(")") {
			a := l.expr(&statement{})
			if l.bad {
				return st, false
			}
			st.args = append(st.args, a)
			l.take(",")
		}
		return st, true
	}
	if st.ret {
		st.args = [][]byte{l.expr(&st)}
		return st, !l.bad
	}
	l.fail()
	return st, false
}

// expr takes a string, an integer, KEYS[n] or ARGV[n], and notes in st.fn whether it was a number.
func (l *lua) expr(st *statement) []byte {
	l.skip()
	st.fn = "string"
	for prefix, list := range map[string][][]byte{"KEYS[": l.keys, "ARGV[": l.argv} {
		if l.take(prefix) {
			i := l.digits()
			if !l.take("]") || i < 1 || i > len(list) {
				l.fail()
				return nil
			}
			return list[i-1]
		}
	}
	if l.src != "" && (l.src[0] == '"' || l.src[0] == '\'') {
		return l.quoted()
	}
	if l.src != "" && '0' <= l.src[0] && l.src[0] <= '9' {
		st.fn = "number"
		return []byte(itoa(l.digits()))
	}
	l.fail()
	return nil
}

func (l *lua) digits() int {
	i := 0
	for i < len(l.src) && '0' <= l.src[i] && l.src[i] <= '9' {
		i++
	}
	n, _ := strconv.Atoi(l.src[:i])
	l.src = l.src[i:]
	return n
}

func (l *lua) quoted() []byte {
	end := l.src[0]
	out := []byte{}
	for i := 1; i < len(l.src); i++ {
		switch x := l.src[i]; {
		case x == end:
			l.src = l.src[i+1:]
			return out
		case x == '\\' && i+1 < len(l.src):
			i++
			switch l.src[i] {
			case 'r':
				out = append(out, '\r')
			case 'n':
				out = append(out, '\n')
			default:
				out = append(out, l.src[i])
			}
		default:
			out = append(out, x)
		}
	}
	l.fail()
	return nil
}
