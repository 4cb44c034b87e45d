package command

import (
	"crypto/sha1"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func words(args ...string) (all [][]byte) {
	for _, a := range args {
		all = append(all, []byte(a))
	}
	return all
}

func sha(body string) string {
	sum := sha1.Sum([]byte(body))
	return hex.EncodeToString(sum[:])
}

// Scripts that applications really send.
var harmlessBodies = []string{
	``, `return 1`, `return {KEYS[1], ARGV[1]}`,
	`if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end`,
	`if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) else return 0 end`,
	"local current\ncurrent = redis.call('incr',KEYS[1])\nif tonumber(current) == 1 then\n redis.call('expire',KEYS[1],ARGV[1])\nend\nreturn current",
	"-- a sliding window, for 'each' client's key\r\nlocal now = redis.call('TIME')\nlocal t = now[1] * 1000000 + now[2]\n" +
		"redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, t - ARGV[1])\nlocal n = redis.call('ZCARD', KEYS[1])\nif n < tonumber(ARGV[2]) then\n" +
		"  redis.call('ZADD', KEYS[1], t, t .. '-' .. math.random())\n  return {1, n}\nend\nreturn {0, n}",
	`local reset_time = 5 local selected = {} return reset_time`,
	`--[[ a "comment" ]] local t = {} for i = 1, #KEYS do t[#t+1] = redis . pcall ( 'HGETALL' , KEYS[i] ) end return cjson.encode(t)`,
	`--[==[ ]] redis.call(ARGV[1]) ]==]`,
	`redis.log(redis.LOG_WARNING, "a \\"quoted\\" text") return redis.error_reply("MYERR no")`,
	`return redis.call('JSON.GET', KEYS[1], '$.a')`, `return redis.call('bitfield_ro', KEYS[1])`, `return redis.sha1hex(ARGV[1])`,
	"#!lua flags=no-writes,allow-stale\nreturn redis.call('GET', KEYS[1])", "--!df flags=allow-undeclared-keys\nreturn redis.call('GET', 'x')",
	`local a = [[redis.call(ARGV[1])]] local b = "redis.call(x)" return a .. b`, `return redis.call('TIME')`, `return redis.acall('SET', KEYS[1], '\195\164')`,
	"return 'caf\xc3\xa9' -- caf\xc3\xa9", `return a[b[1]]`, `local x = 3 .. 'x' return 0x1F + 1e5`, `return server.call('GET', KEYS[1])`,
}

var harmfulBodies = []string{
	// One of stateWords.
	`return redis.call("SELECT", 1)`, `return redis.call('sElEcT', 1)`, `redis.call('HELLO', 3)`, `redis.call('WATCH', 'k')`, `redis.call('unwatch')`, `redis.call('AUTH', 'x')`,
	`redis.call('RESET')`, `redis.call('quit')`, `-- select a key`, `return 'Reset'`, `return {hello=1}`,
	// One of stateWords, put together from parts.
	`redis.call('\83ELECT', 1)`, `redis.call("\x53ELECT", 1)`, `redis.call('SEL'..'ECT', 1)`, `redis.call('SEL' .. "ECT", 1)`, `local c = 'SEL' c = c .. 'ECT' redis.call(c, 1)`,
	`redis.call(string.char(83,69,76,69,67,84), 1)`, `redis.call(('TCELES'):reverse(), 1)`, `redis.call(table.concat{'SEL','ECT'}, 1)`, `redis.call("SEL\z ECT", 1)`,
	`redis.call('GET' and ARGV[1], 1)`, `redis.call("get":gsub("get", ARGV[1]))`,
	// A command that comes from elsewhere.
	`return redis.call(ARGV[1], ARGV[2])`, `return redis.call(unpack(ARGV))`, `return redis.pcall(KEYS[1])`, `return redis.call()`, `return redis.call( -- 'GET'
ARGV[1])`, `return redis.call({'GET'})`, `return redis.call'GET'`, `return redis.call[[GET]]`, `return redis.call([[GET]], 'x')`, `return redis.call('')`,
	// Commands that no script needs, or that nobody knows.
	`return redis.call('CLIENT', 'REPLY', 'OFF')`, `return redis.call('SUBSCRIBE', 'c')`, `return redis.call('MONITOR')`, `return redis.call('MULTI')`, `return redis.call('EVAL', ARGV[1], 0)`,
	`return redis.call('nosuch')`, `return redis.call('FCALL', 'f', 0)`, `return redis.call('CLIENT SETNAME', 'x')`, `return redis.call('GET ', 'x')`, `return redis.call('DEBUG', 'x')`,
	`return redis.call('SCRIPT', 'DEBUG', 'YES')`,
	// Another name for redis.call.
	`local call = redis.call return call(ARGV[1])`, `local r = redis return r.call(ARGV[1])`, `return pcall(redis.call, ARGV[1])`, `return redis['call'](ARGV[1])`, `return redis["ca".."ll"](ARGV[1])`,
	`for k, f in pairs(redis) do f(ARGV[1]) end`, `local t = {redis} t[1].call(ARGV[1])`, `redis.call = nil`, `local redis = {}`, `return (redis).call(ARGV[1])`, `return _G['red'..'is'].call(ARGV[1])`,
	`return _ENV[ARGV[1]]`, `return getfenv(0)[ARGV[1]]`, `setmetatable({}, {__index = 1})`, `return redis:call(ARGV[1])`, `return redis.setresp(3)`, `return redis --[[x]] [ 'call' ](ARGV[1])`,
	`return server.call(ARGV[1])`, `return dragonfly.x(ARGV[1])`, `return debug.getregistry()`, `return 5 redis.call(ARGV[1])`,
	// Code that is not in the body is run.
	`return loadstring(ARGV[1])()`, `return load(ARGV[1])()`, `return require('x')`, `return dofile('x')`, "\x1bLua\x51\x00", `return string.dump(f)`,
	// Doubt about where a comment or string ends.
	"-- x\rreturn redis.call(ARGV[1])", "-- x\nreturn redis.call(ARGV[1])", "--[ x\nreturn redis.call(ARGV[1])", "--[[ x ]]return redis.call(ARGV[1])", "--[=[ x ]] ]=]return redis.call(ARGV[1])",
	"--[==x\nreturn redis.call(ARGV[1])", `return "\"" .. redis.call(ARGV[1]) .. "\""`, `return '\\' .. redis.call(ARGV[1]) .. '\\'`, `return [[x\]] .. redis.call(ARGV[1])`, `return [=[x]]]=] .. redis.call(ARGV[1])`,
	`return a[[[x]]] .. redis.call(ARGV[1])`, "return 'x\ny'", "return 'x\\\r\ny'", `return 'x`, `return [[x`, `--[[ x`, "return 'x\x00'", "return \x00", "return \xc3\xa9", "return -- [[\nredis.call(ARGV[1]) --]]",
	"#!lua name='\nreturn redis.call(ARGV[1])--'", "#!lua\nreturn redis.call(ARGV[1])", "#!lua\rx\nreturn 1",
}

func TestScriptThatLeavesNoStateIsHarmless(t *testing.T) {
	for _, body := range harmlessBodies {
		var s scripts
		if !s.harmless(words("eval", body, "0")) {
			t.Errorf("not harmless: %s", body)
		}
	}
}

func TestScriptThatMayChangeTheConnectionIsNotHarmless(t *testing.T) {
	var s scripts
	for _, body := range harmfulBodies {
		if s.harmless(words("EVAL", body, "0")) || s.remember([]byte(body)) || s.harmless(words("EVALSHA", sha(body), "0")) {
			t.Errorf("harmless: %q", body)
		}
	}
	if s.harmless(words("EVAL")) || s.harmless(nil) || s.harmless(words("EVALSHA")) {
		t.Error("harmless without a body")
	}
	if s.harmless(words("EVAL", "return 1"+strings.Repeat(" ", maxScript), "0")) {
		t.Error("a body above 64 KiB is harmless")
	}
}

func TestScriptIsKnownByItsSHAOnceSeen(t *testing.T) {
	var s scripts
	body := harmlessBodies[3]
	for _, name := range []string{"EVALSHA", "evalsha_ro"} {
		if s.harmless(words(name, sha(body), "0")) {
			t.Errorf("%s: harmless before it was seen", name)
		}
	}
	s.remember([]byte(body)) // SCRIPT LOAD
	s.harmless(words("EVAL_RO", "return 2", "0"))
	for _, sum := range []string{sha(body), strings.ToUpper(sha(body)), sha("return 2")} {
		for _, name := range []string{"EVALSHA", "evalsha", "EvalSha_RO"} {
			if !s.harmless(words(name, sum, "0")) {
				t.Errorf("%s %s: not harmless after it was seen", name, sum)
			}
		}
	}
	for _, sum := range []string{"", sha(body)[1:], sha(body) + "0", strings.Repeat("g", 40), sha("return 3"), body} {
		if s.harmless(words("EVALSHA", sum, "0")) {
			t.Errorf("EVALSHA %.50s: harmless", sum)
		}
	}
}

func TestScriptsRememberedAreBounded(t *testing.T) {
	var s scripts
	for i := range maxScripts + 100 {
		body := "return " + strconv.Itoa(i)
		if !s.remember([]byte(body)) || !s.harmless(words("EVALSHA", sha(body), "0")) {
			t.Fatalf("%s is not remembered", body)
		}
	}
	if len(s.known) != maxScripts {
		t.Errorf("%d remembered, want %d", len(s.known), maxScripts)
	}
}

func TestScriptKnownIsJudgedWithoutAllocation(t *testing.T) {
	var s scripts
	body := harmlessBodies[3]
	for _, args := range [][][]byte{words("EVAL", body, "1"), words("EVALSHA", sha(body), "1")} {
		s.harmless(words("EVAL", body))
		if n := testing.AllocsPerRun(100, func() { s.harmless(args) }); n != 0 {
			t.Errorf("%s: %v allocations", args[0], n)
		}
	}
}

var stateWord = regexp.MustCompile(`(?i)\b(SELECT|HELLO|WATCH|UNWATCH|AUTH|RESET|QUIT)\b`)

// A harmless body holds none of the words and ends outside of any comment or string, so that a harmful call is still found
// after it is appended or prepended.
func FuzzScript(f *testing.F) {
	for _, body := range harmlessBodies {
		f.Add(body)
	}
	for _, body := range harmfulBodies {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if !harmlessScript([]byte(body)) {
			return
		}
		if stateWord.MatchString(body) {
			t.Errorf("%q holds a word", body)
		}
		if harmlessScript([]byte(body+"\nredis.call(ARGV[1])")) || harmlessScript([]byte("redis.call(ARGV[1])\n"+body)) {
			t.Errorf("%q hides what is next to it", body)
		}
		if !strings.HasPrefix(body, "#") && !harmlessScript([]byte("redis.call('GET', KEYS[1])\n"+body)) {
			t.Errorf("%q is harmful behind what is harmless", body)
		}
	})
}

func BenchmarkScript(b *testing.B) {
	body := []byte(harmlessBodies[6])
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			harmlessScript(body)
		}
	})
	b.Run("known", func(b *testing.B) {
		var s scripts
		args := words("EVALSHA", sha(string(body)), "0")
		s.remember(body)
		b.ReportAllocs()
		for b.Loop() {
			s.harmless(args)
		}
	})
}
