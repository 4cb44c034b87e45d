package proxytest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Player replays a transcript. A transcript is made of lines:
//
//	# comment; "# server: requirepass=x maxclients=n loading oom release=2026-08" says what it was recorded on
//	== title              a block, played as a subtest of its own on fresh connections
//	---                   closes all connections; those that follow are fresh
//	> SET k 'a b' "\r\n"  one command as an array; '' quotes, "" quotes with escapes
//	> raw PING\r\n        bytes, with the escapes \r \n \t \0 \xHH \\
//	< +OK\r\n             the bytes that must come next, with escapes
//	< +OK\r\n [CLOSED]    and then the connection is closed, by FIN or RST
//	< (nothing)           no byte within Player.Quiet
//	! fin                 half-closes; "! close" closes, "! sleep 20ms" sleeps
//
// Each of > < ! may have the name of a connection in front of it: "A> PING". In expected bytes {*} stands for any
// bytes (the answer must then be whole frames), {name=*} keeps them, and {$name} stands for what was kept, also in
// what is sent. A title with [fake] is left out when Real is set, one with [direct] when Proxied is.
type Player struct {
	Dial    func() (net.Conn, error)
	Timeout time.Duration // for one expectation; 0: 10 s
	Quiet   time.Duration // of "(nothing)"; 0: 30 ms
	Real    bool          // against a real server
	Proxied bool          // through a proxy
}

// Play replays a transcript of this package, or a file elsewhere when its name holds a slash, against addr
// ("host:port" or "unix:/path"). The address in DRAGONFLY_ADDR is taken to be a real server.
func Play(t *testing.T, addr, file string) {
	t.Helper()
	network, address := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, address = "unix", path
	}
	p := Player{
		Dial: func() (net.Conn, error) { return net.DialTimeout(network, address, 5*time.Second) },
		Real: addr == os.Getenv("DRAGONFLY_ADDR"),
	}
	p.Play(t, file)
}

// Play is the function Play with p's settings.
func (p Player) Play(t *testing.T, file string) {
	t.Helper()
	if p.Timeout == 0 {
		p.Timeout = 10 * time.Second
	}
	if p.Quiet == 0 {
		p.Quiet = 30 * time.Millisecond
	}
	var text []byte
	var err error
	if strings.Contains(file, "/") {
		text, err = os.ReadFile(file)
	} else {
		text, err = transcripts.ReadFile("testdata/" + file)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks(string(text)) {
		if p.Real && strings.Contains(b.title, "[fake]") || p.Proxied && strings.Contains(b.title, "[direct]") {
			continue
		}
		t.Run(b.title, func(t *testing.T) {
			s := &stage{p: p, conns: map[string]*actor{}, kept: map[string]string{}}
			defer s.clear()
			for i, line := range b.lines {
				if err := s.play(line); err != nil {
					t.Fatalf("%s:%d: %s\n%v", file, b.at+i, line, err)
				}
			}
			if err := s.clear(); err != nil {
				t.Fatalf("%s: end of block %q: %v", file, b.title, err)
			}
		})
	}
}

// stage is what one block plays on.
type stage struct {
	p     Player
	conns map[string]*actor
	kept  map[string]string
}

type actor struct {
	nc  net.Conn
	got []byte // read and not yet expected
}

// clear closes all connections; bytes that nobody expected are an error.
func (s *stage) clear() error {
	var err error
	for name, a := range s.conns {
		if len(a.got) > 0 {
			err = fmt.Errorf("unexpected on connection %q: %q", name, a.got)
		}
		_ = a.nc.Close()
	}
	s.conns = map[string]*actor{}
	return err
}

func (s *stage) actor(name string) (*actor, error) {
	if a := s.conns[name]; a != nil {
		return a, nil
	}
	nc, err := s.p.Dial()
	if err != nil {
		return nil, err
	}
	s.conns[name] = &actor{nc: nc}
	return s.conns[name], nil
}

func (s *stage) play(line string) error {
	switch {
	case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
		return nil
	case line == "---":
		return s.clear()
	}
	i := strings.IndexAny(line, "><!")
	if i < 0 || i+1 < len(line) && line[i+1] != ' ' {
		return errors.New("not a line of a transcript")
	}
	rest := ""
	if i+2 <= len(line) {
		rest = line[i+2:]
	}
	a, err := s.actor(line[:i])
	if err != nil {
		return err
	}
	switch line[i] {
	case '>':
		b, err := s.sent(rest)
		if err != nil {
			return err
		}
		// A server that closes early may reset while this is written; what it answered says more.
		_, _ = a.nc.Write(b)
		return nil
	case '!':
		return s.act(a, rest)
	}
	return s.expect(a, rest)
}

func (s *stage) act(a *actor, what string) error {
	if d, ok := strings.CutPrefix(what, "sleep "); ok {
		wait, err := time.ParseDuration(d)
		time.Sleep(wait)
		return err
	}
	switch what {
	case "fin":
		halfClose(a.nc)
	case "close":
		_ = a.nc.Close()
	default:
		return errors.New("unknown act")
	}
	return nil
}

// expect consumes what the line says.
func (s *stage) expect(a *actor, want string) error {
	if want == "(nothing)" {
		return s.expectNothing(a)
	}
	want, closed := strings.CutSuffix(want, "[CLOSED]")
	if closed {
		want = strings.TrimRight(want, " ")
	}
	if want == "(nothing)" {
		want = ""
	}
	end := time.Now().Add(s.p.Timeout)
	m, err := newMatcher(want, s.kept)
	if err != nil {
		return err
	}
	for {
		n, wrong := m.match(a.got, s.kept)
		if wrong {
			return fmt.Errorf("got  %q\nwant %s", a.got, want)
		}
		if n >= 0 {
			a.got = append([]byte(nil), a.got[n:]...)
			break
		}
		if err := a.read(end); err != nil {
			return fmt.Errorf("got  %q, then %w\nwant %s", a.got, err, want)
		}
	}
	if !closed {
		return nil
	}
	for len(a.got) == 0 {
		err := a.read(end)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return errors.New("not closed")
		case err != nil:
			return nil
		}
	}
	return fmt.Errorf("got  %q\nwant a closed connection", a.got)
}

func (s *stage) expectNothing(a *actor) error {
	if len(a.got) == 0 {
		err := a.read(time.Now().Add(s.p.Quiet))
		var timeout net.Error
		if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
			return fmt.Errorf("got %w\nwant nothing", err)
		}
	}
	if len(a.got) > 0 {
		return fmt.Errorf("got  %q\nwant nothing", a.got)
	}
	return nil
}

func (a *actor) read(end time.Time) error {
	_ = a.nc.SetReadDeadline(end)
	buf := make([]byte, 64<<10)
	n, err := a.nc.Read(buf)
	a.got = append(a.got, buf[:n]...)
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// sent turns the text after ">" into bytes.
func (s *stage) sent(text string) ([]byte, error) {
	for name, val := range s.kept {
		text = strings.ReplaceAll(text, "{$"+name+"}", val)
	}
	if raw, ok := strings.CutPrefix(text, "raw "); ok {
		return unescape(raw)
	}
	args, err := words(text)
	if err != nil {
		return nil, err
	}
	return Encode(args...), nil
}
