package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dragontls/certs"
	"dragontls/certs/identity"
	"dragontls/config"
	"dragontls/proxy"
	"dragontls/proxy/command"
)

// login says which certificates may connect, and as whom, in the terms of certs.
func (s *service) login() (certs.Login, error) {
	l := certs.Login{AllowFile: s.c.AllowFile, UsersFile: s.c.UsersFile, CheckUsers: s.compileRules}
	if s.c.Allow == nil {
		return l, nil
	}
	var err error
	if l.Allow, err = identity.ParsePatterns(s.c.Allow); err != nil {
		err = fmt.Errorf("%sALLOW: %w", config.Prefix, err)
	}
	return l, err
}

// compileRules judges the command rules of a file before it is taken into use, and leaves them with it.
func (s *service) compileRules(users *identity.Users) error {
	var faults []error
	for _, rule := range users.Rules() {
		commands, err := command.NewRules(command.RuleOptions{Allow: rule.Allow, Deny: rule.Deny, DryRun: rule.DryRun})
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", rule.Line, err))
			continue
		}
		rule.Commands = commands
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	for _, rule := range users.Rules() {
		if unlisted := command.UnlistedNames(slices.Concat(rule.Allow, rule.Deny)); len(unlisted) > 0 {
			s.log.Warn().Int("line", rule.Line).Str("commands", listed(unlisted)).
				Msg("users file names commands that neither Dragonfly nor Redis knows")
		}
	}
	return nil
}

// listed is a list of names for people.
func listed(unlisted []command.Unlisted) string {
	var names []string
	for _, u := range unlisted {
		names = append(names, u.String())
	}
	return strings.Join(names, ", ")
}

// recheck judges the client of a session by what is trusted now.
func (s *service) recheck(cs *tls.ConnectionState) (proxy.Peer, error) {
	now := s.store.Snapshot()
	p, err := now.Recheck(cs)
	if err != nil {
		return proxy.Peer{}, err
	}
	return proxy.Peer{
		Identity: p.Identity, Name: p.Name, Serial: p.Serial, User: userOf(p),
		Anchor: p.Anchor, NotBefore: p.NotBefore, NotAfter: p.NotAfter, Generation: now.TrustGeneration,
	}, nil
}

// userOf is whom the users file maps the client to; nil: there is none.
func userOf(p certs.Peer) *proxy.User {
	if p.Rule == nil {
		return nil
	}
	commands, _ := p.Rule.Commands.(*command.Rules)
	return &proxy.User{
		Name: p.User, Password: func() (string, error) { return p.Rule.Password(p.User) },
		ClientAuth: p.Rule.ClientAuth, Rules: commands, Mapping: p.Rule.Mapping(),
	}
}

// reloaded judges live sessions again if trust has changed.
func (s *service) reloaded(now *certs.Snapshot) {
	if s.judged.Swap(now.TrustGeneration) != now.TrustGeneration {
		s.server.Recheck()
	}
}
