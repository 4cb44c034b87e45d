package main

import (
	"context"
	"fmt"

	"dragontls/certs"
	"dragontls/certs/identity"
	"dragontls/config"
)

// judgeUsers authenticates as each user of the users file, over a connection of its own. What a template gives is
// known only when a client connects.
func (b *backendCheck) judgeUsers(ctx context.Context, target config.Backend) {
	users := b.service.store.Snapshot().Users()
	if users == nil {
		return
	}
	for _, rule := range users.Rules() {
		if rule.Template() {
			continue
		}
		if !b.judgeUser(ctx, target, rule) {
			return
		}
	}
}

// judgeUser returns false where the next user would fare no better.
func (b *backendCheck) judgeUser(ctx context.Context, target config.Backend, rule *identity.Rule) bool {
	subject := fmt.Sprintf("%s:%d", b.service.c.UsersFile, rule.Line)
	password, err := rule.Password(rule.User)
	if err != nil {
		b.add(certs.SeverityError, "user_password", subject, err.Error(), "")
		return true
	}
	conn, err := b.dial(ctx, target)
	if err != nil {
		b.unreachable(ctx, target, err)
		return false
	}
	defer conn.Close()
	reply, err := conn.ask("AUTH", rule.User, password)
	switch {
	case err != nil:
		b.unreachable(ctx, target, err)
		return false
	case isBusyReply(reply):
		b.add(certs.SeverityWarning, "backend_busy", target.Address, "the backend takes no commands now ("+code(reply)+"): whether it knows the users could not be seen",
			"run check again when it is ready")
		return false
	case b.unreached || code(reply) == "-DENIED": // no user would fare better
		return false
	case reply != "+OK":
		b.add(certs.SeverityError, "user_credentials", subject, fmt.Sprintf("the backend refuses user %q with the password of this rule (%s)", rule.User, code(reply)),
			"make the user there (ACL SETUSER), or correct the name or the password")
	}
	return true
}
