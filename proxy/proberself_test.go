//go:build prober

package proxy

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/command"
	"dragontls/proxy/proxytest"
	"dragontls/proxy/resp"
)

// A prober that finds nothing has to be one that would have found it.
func TestProberFindsWhatIsNotOneReply(t *testing.T) {
	quotes := func(option int) func([]string) string {
		return func(args []string) string {
			if len(args) <= option || slices.Contains([]string{"NX", "XX", "GT", "LT"}, args[option]) {
				return ":1\r\n"
			}
			return "-ERR Unsupported option: " + args[option] + "\r\n"
		}
	}
	hasArg := func(arg, then, otherwise string) func([]string) string {
		return func(args []string) string {
			if slices.Contains(args[1:], arg) {
				return then
			}
			return otherwise
		}
	}
	for _, c := range []struct {
		name   string
		breaks bool
		answer func([]string) string
		found  bool
	}{
		{"GET", true, func([]string) string { return "$1\r\nv\r\n" }, false},
		{"EXPIRE", true, quotes(3), true},
		{"EXPIRE", false, quotes(3), false},
		{"ZRANGE", true, quotes(6), true},
		{"XGROUP|SETID", true, quotes(3), true},
		{"XGROUP|SETID", false, quotes(3), false},
		{"TTL", true, hasArg("abc", "", ":1\r\n"), true},
		{"SET", true, hasArg("", "+OK\r\n+OK\r\n", "+OK\r\n"), true},
		{"TYPE", true, hasArg("\xff\x00", ">1\r\n+x\r\n", "+string\r\n"), true},
		{"ECHO", false, hasArg("-1", "-ERR a\nb\r\n", "$1\r\nv\r\n"), true},
		{"HGET", false, hasArg("'", "*2\r\n:1\r\n", "$1\r\nv\r\n"), true},
		{"HSET", false, hasArg("*3", "QUIT", ":1\r\n"), true},
		{"LPUSH", false, hasArg("$5", "-ERR "+strings.Repeat("x", 140_000)+"\r\n", ":1\r\n"), true},
	} {
		addr := probedServer(t, strings.Split(c.name, "|"), c.answer)
		p := newProber(t, addr, 1)
		p.timeout = time.Second // what is not answered is waited for
		p.add(c.name, c.breaks)
		for range 50 { // enough for every payload in every place of these
			if p.visit(p.subs[0]); len(p.faults) > 0 {
				break
			}
		}
		if (len(p.faults) > 0) != c.found || c.found != (p.subs[0].faulted > 0) || len(p.faults) > maxFaults {
			t.Errorf("%s, CR LF %v: found %q, want some %v", c.name, c.breaks, p.faults, c.found)
		}
		for _, f := range p.faults {
			if !strings.HasPrefix(f, `"`+strings.Split(c.name, "|")[0]+`"`) {
				t.Errorf("%s is blamed on another: %s", c.name, f)
			}
		}
	}
}

func TestProberHasAShapeForEveryCommandOnLanes(t *testing.T) {
	for _, name := range classed(command.Quiet, command.Unbounded, command.Plain, command.UnboundedPlain) {
		words := strings.ReplaceAll(name, "|", " ")
		if !slices.ContainsFunc(probeShapes, func(shape string) bool { return strings.HasPrefix(shape+" ", words+" ") }) {
			t.Errorf("no shape for %s", name)
		}
	}
}

// probedServer answers the command of these words so, and every other as it should be.
func probedServer(t *testing.T, words []string, answer func([]string) string) string {
	return probedServerWith(t, probed{words: words, answer: answer})
}

// probedServerWith serves each connection as d says.
func probedServerWith(t *testing.T, d probed) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			one := d
			one.conn = conn
			go one.serve() // ends with the prober's connection
		}
	}()
	return ln.Addr().String()
}

type probed struct {
	conn    net.Conn
	words   []string
	answer  func([]string) string
	inMulti *refusalInMulti // nil: the command of these words is queued
	multi   bool
	refused bool
	queued  []string // their replies
}

// refusalInMulti is what a server says to a command that it refuses inside MULTI, to the next one, and to EXEC.
type refusalInMulti struct{ refusal, next, exec string }

func (d *probed) serve() {
	defer d.conn.Close()
	var cmds resp.Commands
	var buf []byte
	chunk := make([]byte, 64<<10)
	for {
		n, complete, err := cmds.Next(buf)
		if err != nil {
			return
		}
		if !complete {
			n, err := d.conn.Read(chunk)
			if err != nil {
				return
			}
			buf = append(buf, chunk[:n]...)
			continue
		}
		var args []string
		for _, a := range resp.SplitArgs(buf[:n], nil) {
			args = append(args, string(a))
		}
		buf = buf[n:]
		reply := d.reply(args)
		if reply == "QUIT" {
			return
		}
		if _, err := d.conn.Write([]byte(reply)); err != nil {
			return
		}
	}
}

func (d *probed) reply(args []string) string {
	reply := "+OK\r\n"
	switch {
	case args[0] == "MULTI":
		d.multi, d.refused, d.queued = true, false, nil
		return reply
	case d.refused && args[0] == "EXEC":
		d.multi, d.refused = false, false
		return d.inMulti.exec
	case d.refused:
		return d.inMulti.next
	case d.multi && d.inMulti != nil && args[0] == d.words[0]:
		d.refused = true
		return d.inMulti.refusal
	case args[0] == "EXEC":
		d.multi = false
		return "*" + string('0'+rune(len(d.queued))) + "\r\n" + strings.Join(d.queued, "")
	case args[0] == "HELLO":
		return "%0\r\n"
	case len(args) >= len(d.words) && slices.Equal(args[:len(d.words)], d.words) && !isNonce(args):
		reply = d.answer(args)
	case args[0] == "ECHO" && len(args) == 2:
		reply = string(resp.AppendCommand(nil, args[1])[len("*1\r\n"):])
	}
	if d.multi {
		d.queued = append(d.queued, reply)
		return "+QUEUED\r\n"
	}
	return reply
}

// isNonce tells the prober's own ECHO from one that is probed.
func isNonce(args []string) bool {
	return args[0] == "ECHO" && len(args) == 2 && strings.HasPrefix(args[1], "nonce-")
}

// After a command that is refused inside MULTI, Redis queues the next one and Dragonfly runs it at once; both then discard the
// transaction. The audit takes either, and notices a server that does neither.
func TestProberKnowsBothServersAfterARefusalInsideMulti(t *testing.T) {
	for name, addr := range map[string]string{
		"redis-server": redisServer(t),
		"Dragonfly":    dragonfly(t, proxytest.Options{}).Addr(),
	} {
		p := newProber(t, addr, 1)
		for _, c := range []string{"GET", "SET", "HSET", "HGET"} {
			p.add(c, true)
		}
		for _, s := range p.subs {
			p.visit(s)
		}
		if len(p.faults) > 0 {
			t.Errorf("%s: %q", name, p.faults)
		}
		if p.refused == 0 {
			t.Errorf("%s refused nothing inside MULTI", name)
		}
	}
	const wrong = "-ERR wrong number of arguments for 'get' command\r\n"
	for name, d := range map[string]refusalInMulti{
		"runs the transaction all the same": {next: "+QUEUED\r\n", exec: "*1\r\n$1\r\nv\r\n"},
		"answers something else":            {next: "$1\r\nv\r\n", exec: "-EXECABORT no\r\n"},
		"loses the next reply":              {next: "", exec: "-EXECABORT no\r\n"},
		"answers the next one twice":        {next: "+QUEUED\r\n+QUEUED\r\n", exec: "-EXECABORT no\r\n"},
	} {
		d.refusal = wrong
		addr := probedServerWith(t, probed{words: []string{"GET"}, answer: func([]string) string { return "$1\r\nv\r\n" }, inMulti: &d})
		p := newProber(t, addr, 1)
		p.timeout = time.Second // what is not answered is waited for
		p.add("GET", true)
		if p.visit(p.subs[0]); len(p.faults) == 0 {
			t.Errorf("a server that %s passes", name)
		}
	}
}
