package proxy

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// Applications may send a password although dragontls authenticates their backend connections. A session compares it with
// the one that dragontls uses for this client, and answers as the backend would. It passes no password on.

// maxWrongPasswords is the number of wrong passwords with which a session ends. After the first one the session takes no
// more commands for wrongPasswordPause, and after each further one for twice as long as before. So all its pauses together
// are 31 times as long as the first. A password that cannot be compared, since that of dragontls cannot be read, counts like a
// wrong one.
const maxWrongPasswords = 6

// textWrongPass is the error of Redis and of Dragonfly.
var textWrongPass = resp.AppendError(nil, "WRONGPASS invalid username-password pair or user is disabled.")

// passwordVerdict says what a password is that a client has sent.
type passwordVerdict uint8

const (
	passwordOfClient passwordVerdict = iota // dragontls has none for this client, which authenticates itself
	passwordRight
	passwordWrong
	passwordUnknown // that of dragontls cannot be read at the moment
)

// checkPassword answers an AUTH, or a HELLO with a wrong password, if dragontls authenticates this client. It returns
// classifiedToQueue if the command goes on to Inspect: with the arguments kept, which are those of a HELLO without its AUTH
// if the password was right, and args otherwise. An AUTH is not answered inside MULTI, where its reply would belong into
// that of EXEC, nor while replies are not counted: Inspect refuses it there.
func (s *session) checkPassword(cmd *command.Command, exact bool, args [][]byte) (kept [][]byte, done classified) {
	if s.client.settings.refusePasswords || !exact || s.client.tx != txNone || s.uncounting() || s.clientAuth() {
		return args, classifiedToQueue
	}
	l, ok := cmd.Login(args)
	if !ok {
		return args, classifiedToQueue
	}
	switch verdict := s.judgePassword(&l); {
	case verdict == passwordOfClient:
		return args, classifiedToQueue
	case l.Fault != nil:
		return nil, s.answer(cmd, l.Fault, commandRefused)
	case l.Unread:
		return l.Rest, classifiedToQueue
	case verdict == passwordWrong:
		s.noteWrongPassword()
		return nil, s.refusePassword(cmd, textWrongPass)
	case verdict == passwordUnknown:
		return nil, s.refusePassword(cmd, textUnavailable) // no faster, for it is not the one that is known
	}
	s.server.passwordsRight.Add(1)
	if l.Rest != nil {
		return l.Rest, classifiedToQueue
	}
	return nil, s.answer(cmd, textOK, commandAnswered)
}

// judgePassword compares the login that the client has sent with the one that was configured when the session began, and
// with the one that dragontls would use now: a password file may have been rotated between the two. An own connection that
// dragontls has not authenticated belongs to a client that authenticates itself.
func (s *session) judgePassword(l *command.Login) passwordVerdict {
	up, _ := s.upstreamNow()
	if up != nil && !up.Authenticated() {
		return passwordOfClient
	}
	// Where there is no password, s.credential is the digest of an empty one.
	sent := credentialDigest(string(l.User), string(l.Password))
	if len(l.Password) > 0 && sameDigest(sent, s.credential) {
		return passwordRight
	}
	user, password, err := s.credentials()
	switch {
	case err != nil:
		return passwordUnknown
	case password == "" && up == nil:
		return passwordOfClient
	case password != "" && sameDigest(sent, credentialDigest(user, password)):
		return passwordRight
	}
	return passwordWrong
}

// credentials returns the user and password with which dragontls would authenticate a connection of this session now. An
// empty password means that it would not.
func (s *session) credentials() (user, password string, err error) {
	if l := s.login(); l.Credentials != nil {
		user, password, err = l.Credentials()
	}
	return cmp.Or(user, "default"), password, err
}

// credentialDigest returns a digest of fixed length, so that comparing two of them takes the same time whatever they are of.
func credentialDigest(user, password string) [32]byte {
	name := sha256.Sum256([]byte(user))
	return sha256.Sum256(append(name[:], password...))
}

func sameDigest(a, b [32]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// answer answers a command with text, in its place among the replies. It returns classifiedNoMore if the session takes no
// more from its client. The caller must know that replies are counted and that no transaction is open.
func (s *session) answer(cmd *command.Command, text []byte, as commandFate) classified {
	c := &s.client
	s.countLocal(cmd, as)
	c.pend = append(c.pend, slot{kind: slotLocal, n: 1, text: text})
	if len(c.pend) >= 256 && s.flush() != nil {
		return classifiedNoMore
	}
	return classifiedAnswered
}

// refusePassword answers a login that is not known to be the one of dragontls with text, and then has the session take nothing
// more from its client for a while, or end. If the client has sent many of them lately, maybe in other sessions, the answer waits
// too. Nobody else waits: the reader, which is this session's own, has submitted all that it held.
func (s *session) refusePassword(cmd *command.Command, text []byte) classified {
	s.wrongPasswords++
	if n := s.server.guesses.add(s.quotaKey(), s.server.now()); n > 0 {
		if s.flush() != nil || !s.parkFor(s.server.c.wrongPasswordPause<<(n-1)) {
			return classifiedNoMore
		}
	}
	if s.wrongPasswords == maxWrongPasswords {
		s.countLocal(cmd, commandRefused)
		s.lastWord(text, closeWrongPassword)
		return classifiedNoMore
	}
	pause := s.server.c.wrongPasswordPause << (s.wrongPasswords - 1)
	if s.answer(cmd, text, commandRefused) == classifiedNoMore || s.flush() != nil || !s.parkFor(pause) {
		return classifiedNoMore
	}
	return classifiedAnswered
}

// parkFor waits for d. It returns false if the session has ended.
func (s *session) parkFor(d time.Duration) bool {
	return s.parkWithin(d, func() bool { return false })
}

// noteWrongPassword counts a wrong password, and logs its client, limit.MaxLines a second.
func (s *session) noteWrongPassword() {
	sv := s.server
	sv.passwordsWrong.Add(1)
	if sv.log.GetLevel() > zerolog.WarnLevel || !sv.passwordLines.Pass(sv.now(), s.quotaKey()) {
		return
	}
	e := sv.log.Warn()
	s.describe(e)
	if p := s.peer.Load(); p != nil && p.User != nil {
		e.Str("user", p.User.Name)
	}
	e.Msg("a client sent a password that is not the one it acts with")
}
