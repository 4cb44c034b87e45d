package proxy

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// readerOf is a session of which only the reader's own work is looked at: nothing is read or written.
func readerOf(t testing.TB, u *User) *session {
	t.Helper()
	srv, err := New(Config{TLS: testPKI().serverConfig(), Backend: BackendConfig{Target: backendAt("")}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{server: srv, stripe: &srv.stripes[0]}
	s.client.settings = srv.settings.Load()
	s.queue.init(srv.buffers.NewAccount())
	s.client.cmds.Limits = resp.Limits{MaxBulk: 512 << 20, MaxArgs: 65536, MaxInline: maxInline}
	if u != nil {
		s.peer.Store(&Peer{User: u})
	}
	return s
}

// take frames, judges and queues what is in b, and forgets it.
func (s *session) take(b []byte) {
	c := &s.client
	c.buf, c.r, c.w = b, 0, len(b)
	s.consume()
	s.handOnCount()
	s.dropBatch()
	s.tally(s.stripe.own)
}

var consumed = map[string]*User{
	"no rules": nil,
	"a user":   {Name: "web"},
	"rules": {Name: "web", Rules: func() *command.Rules {
		r, _ := command.NewRules(command.RuleOptions{Allow: []string{"@read"}, Deny: []string{"KEYS"}})
		return r
	}()},
}

func TestCommandsAreJudgedWithoutAllocation(t *testing.T) {
	pipeline := []byte(strings.Repeat(cmd("GET", "key:000001"), 16))
	for name, u := range consumed {
		s := readerOf(t, u)
		s.take(pipeline) // takes its buffers
		if n := testing.AllocsPerRun(100, func() { s.take(pipeline) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if n := s.client.commands.Load(); n != 102*16 {
			t.Errorf("%s: counted %d commands", name, n)
		}
	}
}

func BenchmarkConsumePipeline16(b *testing.B) {
	pipeline := []byte(strings.Repeat(cmd("GET", "key:000001"), 16))
	for name, u := range consumed {
		b.Run(name, func(b *testing.B) {
			s := readerOf(b, u)
			s.take(pipeline)
			b.ReportAllocs()
			for b.Loop() {
				s.take(pipeline)
			}
		})
	}
}
