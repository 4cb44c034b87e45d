package main

import (
	"io"

	"github.com/rs/zerolog"

	"dragontls/config"
	"dragontls/proxy"
)

func auditLevel(c *config.Config) proxy.AuditLevel {
	switch c.AuditLog {
	case "connections":
		return proxy.AuditConnections
	case "commands":
		return proxy.AuditCommands
	}
	return proxy.AuditOff
}

// newAuditLogger writes beside the log, whatever LOG_LEVEL is. Its lines bring their own time.
func newAuditLogger(c config.Config, w io.Writer) zerolog.Logger { return zerolog.New(inFormat(c, w)) }
