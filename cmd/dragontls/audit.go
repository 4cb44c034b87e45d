package main

import (
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
