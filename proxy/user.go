package proxy

import (
	"errors"
	"fmt"
	"strings"

	"dragontls/proxy/backend"
	"dragontls/proxy/command"
)

// User is whom a session acts as at the backend. It is not modified once a Peer names it.
type User struct {
	// Name of the backend's ACL user: printable ASCII without blanks.
	Name string
	// Password is called at every dial, from any goroutine. An error or an empty password fails that dial.
	Password func() (string, error)
	// ClientAuth: the client may authenticate as somebody else.
	ClientAuth bool
	// Rules say which commands the client may use; nil: all. Others take effect with the next command of a live session;
	// a transaction that is open then does not run.
	Rules *command.Rules
	// Mapping is a digest of what gives the client this user, Rules aside. Live sessions end when it changes.
	Mapping [32]byte
}

func (u *User) credentials() (user, password string, err error) {
	if u.Password == nil {
		return "", "", fmt.Errorf("%w %q: none is configured", backend.ErrNoPassword, u.Name)
	}
	password, err = u.Password()
	if err == nil && password == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", "", fmt.Errorf("%w %q: %w", backend.ErrNoPassword, u.Name, err)
	}
	return u.Name, password, nil
}

// sameUser tells whether a session that acts as a may go on as b: Rules and the password may differ.
func sameUser(a, b *User) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Mapping == b.Mapping && a.Name == b.Name && a.ClientAuth == b.ClientAuth
}

// badUser refuses a client whose mapped name no backend can tell apart from something else.
type badUser struct{}

func (badUser) Error() string {
	return "the user's name is empty or holds a blank or a character beyond ASCII"
}
func (badUser) Reason() string { return handshakeBadUser }

func (u *User) check() error {
	if u.Name == "" || strings.ContainsFunc(u.Name, notPlain) {
		return badUser{}
	}
	return nil
}

func notPlain(r rune) bool { return r < '!' || r > '~' }

// login of the connections that this session dials.
func (s *session) login() backend.Login {
	c := &s.server.c.Backend
	p := s.peer.Load()
	l := backend.Login{Credentials: c.Credentials, Account: s.account()}
	if p == nil {
		return l
	}
	if p.User != nil {
		l.Credentials, l.Mapped = p.User.credentials, true
	}
	l.Name = s.givenName()
	s.pump.mu.Lock()
	l.State = s.state
	s.pump.mu.Unlock()
	return l
}

// maxConnectionName is what CLIENT LIST shows at a glance; backends take more.
const maxConnectionName = 64

// connectionName is a client's name as CLIENT SETNAME takes it: printable ASCII without blanks.
func connectionName(name string) string {
	plain := strings.Map(func(r rune) rune {
		if notPlain(r) {
			return '_'
		}
		return r
	}, name)
	full := "dragontls:" + plain
	return full[:min(len(full), maxConnectionName)]
}

// logUserRefused logs why the session's own user has no connection, limit.MaxLines a second. What is wrong with the backend itself
// is logged by its prober.
func (s *session) logUserRefused(err error) {
	ofUser := errors.Is(err, backend.ErrAuth) || errors.Is(err, backend.ErrOpen) || errors.Is(err, backend.ErrNoPassword)
	p := s.peer.Load()
	if p == nil || p.User == nil || !ofUser || !s.server.userLines.Pass(s.server.now(), s.quotaKey()) {
		return
	}
	f := faultOfUser(err)
	e := s.server.log.Warn().Str("backend", s.server.backend.URL()).Str("reason", f.Reason).Str("error", backend.Printable(err.Error()))
	s.describe(e)
	e.Str("user", p.User.Name).Str("finding", f.Line).Str("cure", f.Cure).Msg("a client's user gets no backend connection")
}

// faultOfUser is backend.Explain where the credentials are those of a rule in the users file.
func faultOfUser(err error) backend.Fault {
	f := backend.Explain(err)
	switch {
	case errors.Is(err, backend.ErrAuth):
		f.Line = "the backend refuses the user and password of a client"
		f.Cure = "make the user there (ACL SETUSER), or correct its name or password in the users file"
	case errors.Is(err, backend.ErrNoPassword):
		f.Line = "the password of a client's user cannot be read"
		f.Cure = "put the password file back that the rule of the users file names; it is read again at every dial"
	}
	return f
}

// clientAuth reports whether the client may change the user that this session acts as.
func (s *session) clientAuth() bool {
	p := s.peer.Load()
	return p != nil && p.User != nil && p.User.ClientAuth
}

// rules of the client's user as they are now; nil: all commands. hot
func (s *session) rules() *command.Rules {
	if p := s.peer.Load(); p != nil && p.User != nil {
		return p.User.Rules
	}
	return nil
}

// changeRules takes over the rules for the command that is judged next. What a transaction holds was judged by others,
// so it will not run; where replies cannot be counted the session ends instead.
func (s *session) changeRules(now *command.Rules) bool {
	c := &s.client
	same := now.Same(c.rules)
	c.rules = now
	if same || c.tx == txNone {
		return true
	}
	s.transact(txDisturbs)
	if s.uncounting() {
		s.lastWord(textRulesChanged, closeRefused)
		return false
	}
	return true
}

// ruled judges a command by the rules of the client's user; nil passes it on. hot
func (s *session) ruled(cmd *command.Command, name, sub []byte) []byte {
	r := s.client.rules
	text := r.Judge(cmd, name, sub)
	if text == nil {
		return nil
	}
	if !r.DryRun() {
		return text
	}
	s.server.rulesWouldDeny[cmd.ID].Add(1)
	if r.FirstTime(cmd) {
		p := s.peer.Load()
		s.event(s.server.log.Info()).Str("command", cmd.Name).Str("client", p.Name).Str("user", p.User.Name).
			Msg("command would be refused by the users file")
	}
	return nil
}
