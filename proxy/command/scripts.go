package command

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"sync"
)

const (
	maxScript  = 64 << 10 // bytes; a longer body counts as harmful
	maxScripts = 4096     // sums that are remembered; a further one takes the place of any other
)

// scripts remembers the SHA-1 sums of harmless bodies, whichever session sent them. The zero value works. Safe for concurrent
// use.
type scripts struct {
	mu    sync.Mutex
	known map[[sha1.Size]byte]struct{}
}

// harmless reports whether a command leaves the state of its connection as it was. It must be EVAL or EVAL_RO, where args[1]
// is the body, or EVALSHA or EVALSHA_RO, where args[1] is the SHA-1 of a body, which must have been seen before.
func (s *scripts) harmless(args [][]byte) bool {
	if len(args) < 2 {
		return false
	}
	if len(args[0]) < len("EVALSHA") || !IsWord(args[0][:len("EVALSHA")], "EVALSHA") { // the command is one of these four
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

// remember reports whether the body of an EVAL or a SCRIPT LOAD is harmless, and remembers its SHA-1 if it is.
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

// harmlessScript reads a body as Lua 5.1 of Redis and Lua 5.4 of Dragonfly do. It returns true only if every command that
// the body can run is written out in it, and none of them changes the connection. A wrong false costs only speed.
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

// stateWords are commands that change the state of a connection. A body that holds one of them anywhere, even in a comment,
// is not harmless.
var stateWords = wordSet("SELECT HELLO WATCH UNWATCH AUTH RESET QUIT")

// luaRefused are names through which a body could reach redis.call in another way, or run code that is not in it.
var luaRefused = wordSet(`load loadstring loadfile dofile require module package debug _G _ENV getfenv setfenv newproxy
	rawget rawset getmetatable setmetatable char dump dragonfly`)

// luaHelpers are the harmless functions and numbers of redis besides call and pcall. setresp is not one of them.
var luaHelpers = wordSet(`error_reply status_reply sha1hex log LOG_DEBUG LOG_VERBOSE LOG_NOTICE LOG_WARNING
	replicate_commands`)

func wordSet(words string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// harmlessCall reads on after "redis", and reports whether that is a use of a helper, or .call("NAME" for a command that
// leaves no state. Any other use, such as giving it another name, is not harmless.
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
	end := l.next().kind // anything else may extend the name, such as "SEL" .. "ECT"
	return end == ',' || end == ')'
}

// leavesNoState reports whether a command that a script runs leaves the state of its connection as it was.
func leavesNoState(name []byte) bool {
	return theCatalogue().row(upperWord(name)).class.LeavesNoState()
}

// holdsStateWord reports whether one of stateWords is in body, in any case.
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

// afterShebang returns the body without a first line such as "#!lua flags=no-writes", which belongs to Redis and not to Lua.
// ok is false if that line holds unexpected bytes.
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
