package command

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"sync"
)

const (
	maxScript  = 64 << 10 // bytes of a body that is looked at
	maxScripts = 4096     // remembered; one more takes the place of any other
)

// scripts remembers which SHA-1 sums are those of harmless bodies, whoever sent them. Ready as its zero value, for
// concurrent use.
type scripts struct {
	mu    sync.Mutex
	known map[[sha1.Size]byte]struct{}
}

// harmless reports whether EVAL, EVAL_RO (args[1] is the body), EVALSHA or EVALSHA_RO (its SHA-1, seen before) leaves the
// connection as it was.
func (s *scripts) harmless(args [][]byte) bool {
	if len(args) < 2 {
		return false
	}
	if len(args[0]) < len("EVALSHA") || !IsWord(args[0][:len("EVALSHA")], "EVALSHA") { // the names are these four alone
		return s.remember(args[1])
	}
	var sum [sha1.Size]byte
	if len(args[1]) != hex.EncodedLen(len(sum)) {
		return false
	}
	if _, err := hex.Decode(sum[:], args[1]); err != nil {
		return false
	}
	return s.has(sum)
}

// remember judges a body, as SCRIPT LOAD has it too, and keeps its SHA-1 if it is harmless.
func (s *scripts) remember(body []byte) bool {
	if len(body) > maxScript {
		return false
	}
	sum := sha1.Sum(body)
	if s.has(sum) {
		return true
	}
	if !harmlessScript(body) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[[sha1.Size]byte]struct{})
	}
	if len(s.known) >= maxScripts {
		for other := range s.known {
			delete(s.known, other)
			break
		}
	}
	s.known[sum] = struct{}{}
	return true
}

func (s *scripts) has(sum [sha1.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.known[sum]
	return known
}

// harmlessScript reads a body as Lua does, 5.1 of Redis and 5.4 of Dragonfly. It says yes only where every command
// that the body can run is written out, and none of them changes the connection. No costs speed and nothing else.
func harmlessScript(body []byte) bool {
	if holdsNUL(body) || holdsStateWord(body) {
		return false
	}
	body, ok := afterShebang(body)
	if !ok {
		return false
	}
	l := lua{in: body}
	for {
		switch t := l.next(); {
		case t.kind == luaEnd:
			return true
		case t.kind == luaBad:
			return false
		case t.kind != luaName:
		case luaRefused[string(t.text)]:
			return false
		case string(t.text) == "redis" || string(t.text) == "server":
			if !l.harmlessCall() {
				return false
			}
		}
	}
}

// stateWords change what the proxy remembers of a connection, or what the backend does. In a body they may stand
// nowhere, not even in a comment.
var stateWords = wordSet("SELECT HELLO WATCH UNWATCH AUTH RESET QUIT")

// luaRefused can get at redis.call in another way, or run what is not in the body.
var luaRefused = wordSet(`load loadstring loadfile dofile require module package debug _G _ENV getfenv setfenv newproxy
	rawget rawset getmetatable setmetatable char dump dragonfly`)

// luaHelpers are the functions and numbers of redis besides call and pcall. setresp is not among them.
var luaHelpers = wordSet(`error_reply status_reply sha1hex log LOG_DEBUG LOG_VERBOSE LOG_NOTICE LOG_WARNING
	replicate_commands`)

func wordSet(words string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// harmlessCall goes on behind "redis". A use that is neither .call("NAME" nor a helper, such as giving it another name,
// may be anything.
func (l *lua) harmlessCall() bool {
	if l.next().kind != '.' {
		return false
	}
	field := l.next()
	if field.kind != luaName {
		return false
	}
	switch string(field.text) {
	case "call", "pcall", "acall", "apcall": // the last two are Dragonfly's
	default:
		return luaHelpers[string(field.text)]
	}
	if l.next().kind != '(' {
		return false
	}
	name := l.next()
	if name.kind != luaString || name.escaped || !leavesNoState(name.text) {
		return false
	}
	end := l.next().kind // anything else goes on with the name: "SEL" .. "ECT"
	return end == ',' || end == ')'
}

// leavesNoState looks at a command that a script runs.
func leavesNoState(name []byte) bool {
	return theCatalogue().row(upperWord(name)).class.LeavesNoState()
}

func holdsStateWord(body []byte) bool {
	for len(body) > 0 {
		n := 0
		for n < len(body) && wordByte(body[n]) {
			n++
		}
		if n >= len("AUTH") && n <= len("UNWATCH") && stateWords[strings.ToUpper(string(body[:n]))] {
			return true
		}
		body = body[min(n+1, len(body)):]
	}
	return false
}

func wordByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '_'
}

// afterShebang drops a first line such as "#!lua flags=no-writes", which is Redis' and not Lua.
func afterShebang(body []byte) (rest []byte, ok bool) {
	if !bytes.HasPrefix(body, []byte("#")) {
		return body, true
	}
	line, rest, _ := bytes.Cut(body, byteLF)
	for _, b := range line {
		if !wordByte(b) && strings.IndexByte("#! =,-", b) < 0 {
			return nil, false
		}
	}
	return rest, true
}
