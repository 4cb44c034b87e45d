package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"dragontls/config"
	"dragontls/proxy"
	"dragontls/proxy/admin"
)

// logLevels are the values of LOG_LEVEL.
var logLevels = []string{"trace", "debug", "info", "warn", "error"}

// operatorDrain stands in the log where a drain has no signal: an operator has asked the admin listener for it.
type operatorDrain struct{}

func (operatorDrain) String() string { return "drain by an operator" }

// control is what an operator may have the process do through the admin listener.
func (s *service) control() *admin.Control {
	log := s.out.auditLogger().With().Timestamp().Logger() // whatever LOG_LEVEL is
	told := func(by, action string) *zerolog.Event {
		return log.Info().Str("action", action).Str("by", by)
	}
	const message = "an operator asked"
	return &admin.Control{
		Kill: func(by, identity, address string) (int, error) {
			picked, err := newPick(identity, address)
			if err != nil {
				return 0, err
			}
			n := s.server.KillSessions(func(i proxy.SessionInfo) bool { return picked(i.Identity, i.Address) })
			told(by, "kill").Str("identity", oneLine(identity)).Str("address", oneLine(address)).Int("killed", n).Msg(message)
			return n, nil
		},
		Reload: func(by string) (bool, error) {
			told(by, "reload").Msg(message)
			r := s.reload(by)
			return r.Changed || len(r.Settings) > 0, errors.Join(r.Err, r.SettingsErr)
		},
		Drain: func(by string) {
			told(by, "drain").Msg(message)
			select {
			case s.drainAsked <- struct{}{}:
			default: // the process drains, or is about to: one request is enough
			}
		},
		SetLevel: func(by, level string) error {
			if !slices.Contains(logLevels, level) {
				return fmt.Errorf("level: one of %s", strings.Join(logLevels, ", "))
			}
			parsed, err := zerolog.ParseLevel(level)
			if err != nil {
				return err
			}
			s.out.setLevel(parsed)
			told(by, "log-level").Str("to", level).Msg(message)
			return nil
		},
	}
}

// cureOfSocket is what else to do if the admin listener's socket cannot be opened.
func cureOfSocket(c config.Config) string {
	switch {
	case !strings.HasPrefix(c.AdminListen, admin.UnixScheme):
		return ""
	case c.TakeOver:
		return "; its directory must exist, and this user must be allowed to write to it"
	}
	return "; its directory must exist, and this user must be allowed to write to it; DRAGONTLS_TAKE_OVER=true takes the path from another dragontls that listens there"
}
