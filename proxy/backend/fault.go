package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"

	"dragontls/proxy/resp"
)

// Fault is a way in which a backend fails, in words for the person on call.
type Fault struct {
	Reason string // a word: the label of a metric, and what /readyz says
	Line   string // the message of its log line
	Cure   string
}

// knownFault is a Fault and how to recognise it.
type knownFault struct {
	Fault
	is func(error) bool
}

// of recognises an error by what it wraps.
func of(kinds ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
	}
}

// knownFaults are all of them. The first that fits counts; the last fits always.
var knownFaults = []knownFault{
	{Fault{"no_ports", "no local port is left to dial the backend from",
		"widen net.ipv4.ip_local_port_range, have clients keep their connections, or reach the backend over a Unix socket"}, isOutOfPorts},
	{Fault{"wants_tls", "the backend speaks TLS on this port, and DRAGONTLS_BACKEND_URL says redis://",
		"say rediss:// in DRAGONTLS_BACKEND_URL and name the CA of its certificate in DRAGONTLS_BACKEND_CA_FILE, or name its port without TLS"}, of(ErrWantsTLS)},
	{Fault{"no_tls", "the backend speaks no TLS on this port, and DRAGONTLS_BACKEND_URL says rediss://",
		"name its TLS port; redis:// would send the password and all data in clear: if this backend spoke TLS before, find out who answers now"}, of(ErrNoTLS)},
	{Fault{"protected", "the backend is in protected mode: it has no password, and refuses other machines for that",
		"give it a password (requirepass), and dragontls the same in DRAGONTLS_BACKEND_PASSWORD_FILE"}, of(ErrProtected)},
	{Fault{"no_password", "a password is configured, and the backend has none",
		"give its default user that password (requirepass), or remove DRAGONTLS_BACKEND_PASSWORD"}, of(ErrNoneWanted)},
	{Fault{"auth", "the backend refuses the configured user and password",
		"compare DRAGONTLS_BACKEND_USERNAME and DRAGONTLS_BACKEND_PASSWORD (or their _FILE, or the DRAGONTLS_BACKEND_URL) with the backend's requirepass and ACL LIST"}, of(ErrAuth)},
	{Fault{"unauthenticated_access", "the backend serves connections that have not authenticated, so that a client could drop the user it is given",
		"give its default user a password (requirepass), or switch it off (ACL SETUSER default off)"}, of(ErrOpen)},
	{Fault{"settings", "the address or the credentials of the backend cannot be read",
		"put the file back that the error names; it is read again at every dial"}, of(errSettings, ErrNoPassword)},
	{Fault{"name", "the name of the backend cannot be resolved",
		"correct the host in DRAGONTLS_BACKEND_URL, or see to the DNS of this machine"}, isUnresolved},
	{Fault{"refused", "nobody listens at the address of the backend: the connection is refused",
		"start the backend, or correct host and port in DRAGONTLS_BACKEND_URL"}, of(syscall.ECONNREFUSED, syscall.ENOENT)},
	{Fault{"silent", "the backend takes connections and does not answer",
		"see whether its process is stopped, swapped out or in a long command; where something else listens there, correct DRAGONTLS_BACKEND_URL"}, of(ErrSilent)},
	{Fault{"certificate", "the certificate of the backend does not verify",
		"as the error says: renew it, name its CA in DRAGONTLS_BACKEND_CA_FILE, or name the host that it is issued for in DRAGONTLS_BACKEND_SERVER_NAME"}, isBadCertificate},
	{Fault{"tls", "TLS with the backend fails",
		"if it refuses us, name a certificate that it accepts in DRAGONTLS_BACKEND_CERT_FILE and DRAGONTLS_BACKEND_KEY_FILE; it must speak TLS 1.2 or 1.3"}, isTLSFault},
	{Fault{"timeout", "no connection to the backend within DRAGONTLS_BACKEND_CONNECT_TIMEOUT",
		"see whether its machine is up, and whether a firewall or network policy drops the packets"}, isTimeout},
	{Fault{"max_clients", "the backend refuses connections: its maxclients is reached",
		"raise its maxclients, lower DRAGONTLS_BACKEND_MAX_CONNECTIONS, or close connections of its other clients"}, of(ErrMaxClients)},
	{Fault{"state", "the backend refuses the database, protocol or name that a session had",
		"see whether its ACL rules or its number of databases have changed"}, of(ErrState)},
	{Fault{"busy", "a long script runs in the backend, which refuses commands until it ends",
		"wait, or end it with SCRIPT KILL"}, of(ErrScript)},
	{Fault{"loading", "the backend is loading its data, and answers most commands with -LOADING",
		"wait until it is done"}, of(ErrBusy)},
	{Fault{"not_resp", "what listens at the address of the backend does not answer in RESP",
		"name the port of Dragonfly or Redis in DRAGONTLS_BACKEND_URL"}, of(resp.ErrMalformed)},
	{Fault{"unasked", "the backend answers what was not asked",
		"see what stands between dragontls and the backend"}, of(ErrUnasked, ErrUnproven, ErrNoTransactions)},
	{Fault{"closed", "the backend closes the connection without an answer",
		"look at its log"}, isClosed},
	{Fault{"dial", "the backend cannot be reached",
		"see the error: the address in DRAGONTLS_BACKEND_URL, the network, or the limits of this process"}, func(error) bool { return true }},
}

// Faults lists the ways in which a backend fails.
func Faults() (list []Fault) {
	for _, k := range knownFaults {
		list = append(list, k.Fault)
	}
	return list
}

// Explain returns what went wrong with a dial or a probe; err is not nil.
func Explain(err error) Fault {
	i := slices.IndexFunc(knownFaults, func(k knownFault) bool { return k.is(err) })
	return knownFaults[i].Fault
}

// Reason is the word of Explain.
func Reason(err error) string { return Explain(err).Reason }

func isUnresolved(err error) bool {
	_, ok := errors.AsType[*net.DNSError](err)
	return ok
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && ne.Timeout()
}

// isClosed reports whether err is that the backend has ended a connection, in whatever way.
func isClosed(err error) bool {
	return of(io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE)(err)
}

func isBadCertificate(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

func isTLSFault(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return errors.Is(err, ErrTLS) && !isTimeout(err) || ok && op.Op == "remote error" // an alert after the handshake
}
