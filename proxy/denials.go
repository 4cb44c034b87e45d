package proxy

import (
	"bytes"
	"sync/atomic"

	"github.com/rs/zerolog"

	"dragontls/proxy/command"
	"dragontls/proxy/limit"
	"dragontls/proxy/netio"
)

// deniedBy says what denied a command. Its text is the label of a metric.
type deniedBy uint8

const (
	byDenyCommands   deniedBy = iota // DENY_COMMANDS
	byUsersFile                      // the rules of the client's user
	byAuthentication                 // the client may not authenticate: dragontls has done so
	byTransaction                    // a command was denied before in the same transaction
	byForm                           // it could be read in another way than it is judged: NUL, too long, not RESP
	deniedKinds
)

var deniedTexts = [deniedKinds]string{
	byDenyCommands: "deny_commands", byUsersFile: "users_file", byAuthentication: "authentication",
	byTransaction: "transaction", byForm: "form",
}

func (by deniedBy) String() string { return deniedTexts[by] }

// denials count and log denied commands, by deniedBy.
type denials [deniedKinds]struct {
	count atomic.Uint64
	lines limit.Lines[netio.QuotaKey]
}

// snapshot returns how many commands were denied, by each kind.
func (d *denials) snapshot() map[string]uint64 {
	m := make(map[string]uint64, deniedKinds)
	for by := range deniedKinds {
		m[by.String()] = d[by].count.Load()
	}
	return m
}

// formOr returns by for a refusal that denies a permission, and byForm for any other: by has not judged what cannot be read safely.
func formOr(by deniedBy, text []byte) deniedBy {
	if bytes.HasPrefix(text, []byte("-NOPERM ")) {
		return by
	}
	return byForm
}

// noteDenied counts a denied command, and logs its name in the table and its client, MaxLines a second for each kind and
// MaxLinesOfOne for each client. No argument is logged, and no name that a client has made up.
func (s *session) noteDenied(cmd *command.Command, by deniedBy) {
	d := &s.server.denials[by]
	d.count.Add(1)
	log := &s.server.log
	if log.GetLevel() > zerolog.InfoLevel || !d.lines.Pass(s.lastActive.Load(), s.quotaKey()) {
		return
	}
	e := log.Info().Stringer("by", by).Str("command", cmd.Name)
	s.describe(e)
	if p := s.peer.Load(); p != nil && p.User != nil {
		e.Str("user", p.User.Name)
	}
	e.Msg("command denied")
}
