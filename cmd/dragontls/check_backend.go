package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"dragontls/certs"
	"dragontls/config"
	"dragontls/proxy/backend"
)

// backendCheck asks the backend what a stranger on the network could. One goroutine uses it.
type backendCheck struct {
	service   *service
	addresses func() []netip.Addr // of this machine, loopback aside
	found     []certs.Finding
	checked   string
	unreached bool // there is a finding about that, which is enough
}

func (s *service) newBackendCheck() *backendCheck {
	return &backendCheck{service: s, addresses: localAddresses, checked: "backend"}
}

func (b *backendCheck) add(severity certs.Severity, id, subject, message, cure string) {
	b.found = append(b.found, certs.Finding{ID: id, Severity: severity, Subject: subject, Message: message, Cure: cure})
}

// run takes BACKEND_CONNECT_TIMEOUT for each of: the name, the connection, the other addresses.
func (b *backendCheck) run(ctx context.Context) {
	target, err := b.service.c.BackendTarget()
	var user, password string
	if err == nil {
		user, password, err = b.service.c.BackendCredentials()
	}
	if err != nil {
		b.add(certs.SeverityError, "backend_settings", "backend", err.Error(), "put the file back as it was when the configuration was read")
		return
	}
	b.checked = "backend " + target.Address
	b.judgeNetwork(ctx, target)
	conn, err := b.dial(ctx, target)
	if err != nil {
		b.unreachable(ctx, target, err)
		return
	}
	defer conn.Close()
	if conn.peer != nil {
		b.found = append(b.found, certs.LintPeer(target.Address, conn.peer, certs.LintOptions{ExpiryWarning: b.service.c.ExpiryWarning})...)
	}
	if b.judgeAccess(ctx, conn, target, user, password) {
		b.judgeMaxClients(conn, target.Address)
	}
	b.judgeUsers(ctx, target)
}

// namedUsers reports whether serve acts as users other than default: then it wants NOAUTH from the backend before AUTH.
func (b *backendCheck) namedUsers(user, password string) bool {
	return b.service.c.UsersFile != "" || password != "" && user != "" && user != "default"
}

// judgeAccess asks without a password first: a command must be refused; then the credentials must be accepted. It reports whether more
// can be asked over this connection.
func (b *backendCheck) judgeAccess(ctx context.Context, conn *respConn, target config.Backend, user, password string) bool {
	address := target.Address
	reply, err := conn.ask("PING")
	if err != nil {
		b.unreachable(ctx, target, err)
		return false
	}
	open := false
	switch {
	case isFullReply(reply):
		b.add(certs.SeverityError, "backend_max_clients", address, "the backend refuses connections: its maxclients is reached",
			"raise its maxclients, or close connections of others")
		return false
	case isBusyReply(reply):
		b.add(certs.SeverityWarning, "backend_busy", address, "the backend takes no commands now ("+code(reply)+"): whether it wants a password could not be seen",
			"run check again when it is ready")
		return false
	case errors.Is(turnedAway(reply), backend.ErrWantsTLS):
		b.unreachable(ctx, target, backend.ErrWantsTLS)
		return false
	case errors.Is(turnedAway(reply), backend.ErrProtected):
		f := backend.Explain(backend.ErrProtected)
		b.add(certs.SeverityError, "backend_no_password", address, f.Line, f.Cure)
		return false
	case code(reply) == "-NOAUTH":
	case code(reply) == "-NOPERM" && b.namedUsers(user, password):
		b.add(certs.SeverityError, "backend_no_password", address,
			"the backend's default user has no password: it may do little ("+code(reply)+"), but every connection starts as that user, and serve refuses such a backend, since clients could drop the user that they are given",
			"give its default user a password (requirepass), or switch it off (ACL SETUSER default off)")
	case code(reply) == "-NOPERM": // a default user that may do little
	default:
		open = true
		message := "the backend answers commands without a password: anybody who reaches it past dragontls gets in"
		if b.namedUsers(user, password) {
			message += ", and serve refuses it, since clients could drop the user they are given"
		}
		b.add(certs.SeverityError, "backend_no_password", address, message,
			"give its default user a password (requirepass), and set "+config.Prefix+"BACKEND_PASSWORD_FILE")
	}
	if password == "" {
		return true
	}
	words := []string{"AUTH", password}
	if user != "" {
		words = []string{"AUTH", user, password}
	}
	reply, err = conn.ask(words...)
	switch {
	case err != nil:
		b.unreachable(ctx, target, err)
	case reply == "+OK":
		return true
	case isBusyReply(reply):
		b.add(certs.SeverityWarning, "backend_busy", address, "the backend takes no commands now ("+code(reply)+"): whether it accepts the credentials could not be seen",
			"run check again when it is ready")
	case open:
		b.add(certs.SeverityError, "backend_credentials", address, "the backend refuses the configured credentials ("+code(reply)+"): it knows no such password",
			"give it the password that dragontls is configured with")
	default:
		b.add(certs.SeverityError, "backend_credentials", address, "the backend is up and refuses the configured user and password ("+code(reply)+")",
			"compare "+config.Prefix+"BACKEND_USERNAME and "+config.Prefix+"BACKEND_PASSWORD, or their like in "+config.Prefix+"BACKEND_URL, with the backend's")
	}
	return false
}

// judgeMaxClients compares what the backend takes with what serve may open, where the backend tells it.
func (b *backendCheck) judgeMaxClients(conn *respConn, address string) {
	most, err := strconv.Atoi(conn.askSetting("maxclients"))
	// serve has one connection more than that limit, which asks whether the backend is up.
	if own := b.service.c.BackendMaxConnections; err == nil && most > 0 && own >= most {
		b.add(certs.SeverityWarning, "backend_max_clients", address,
			fmt.Sprintf("the backend takes %d clients (maxclients), and %sBACKEND_MAX_CONNECTIONS is %d: it refuses connections before that limit is reached", most, config.Prefix, own),
			"raise its maxclients, or set "+config.Prefix+"BACKEND_MAX_CONNECTIONS below it, by as many as its other clients need")
	}
}

// unreachable adds what the first connection that failed says of the backend.
func (b *backendCheck) unreachable(ctx context.Context, target config.Backend, err error) {
	if b.unreached {
		return
	}
	b.unreached = true
	if target.Network == "tcp" {
		ctx, cancel := context.WithTimeout(ctx, b.service.c.BackendConnectTimeout)
		defer cancel()
		err = backend.LookAgain(ctx, target.Address, target.TLS, err)
	}
	f := backend.Explain(err)
	message := f.Line + ": " + backend.Printable(err.Error())
	switch f.Reason {
	case "wants_tls":
		b.add(certs.SeverityError, "backend_wants_tls", target.Address, message, f.Cure)
	case "no_tls":
		b.add(certs.SeverityError, "backend_no_tls", target.Address, message, f.Cure)
	case "certificate", "tls":
		b.add(certs.SeverityError, "backend_tls", target.Address, message, cureOfTLS(err, f.Cure))
	case "not_resp":
		b.add(certs.SeverityError, "backend_not_resp", target.Address, message, f.Cure)
	default:
		b.add(certs.SeverityError, "backend_unreachable", target.Address, message, f.Cure)
	}
}

// cureOfTLS looks at what crypto/tls says, in types where it has them. cure is that of the fault.
func cureOfTLS(err error, cure string) string {
	var (
		invalid  x509.CertificateInvalidError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
	)
	switch {
	case errors.As(err, &invalid):
		return "renew the certificate of the backend"
	case errors.As(err, &unknown):
		return "name the CA of the backend's certificate in " + config.Prefix + "BACKEND_CA_FILE"
	case errors.As(err, &hostname):
		return "name what the backend's certificate is issued for in " + config.Prefix + "BACKEND_SERVER_NAME"
	}
	return cure
}

// dial connects as serve does, within BACKEND_CONNECT_TIMEOUT for all that is asked over the connection.
func (b *backendCheck) dial(ctx context.Context, target config.Backend) (*respConn, error) {
	ctx, cancel := context.WithTimeout(ctx, b.service.c.BackendConnectTimeout)
	defer cancel()
	raw, err := dialRESP(ctx, target.Network, target.Address)
	if err != nil || !target.TLS {
		return raw, err
	}
	conf := b.service.backendTLS()
	if conf == nil {
		raw.Close()
		return nil, errors.New(config.Prefix + "BACKEND_URL_FILE changed between redis:// and rediss:// while it was checked")
	}
	if conf.ServerName == "" {
		conf.ServerName = target.Host
	}
	secure := tls.Client(raw.Conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		if isTimeout(err) {
			return nil, fmt.Errorf("%w: no TLS handshake within %v: %w", backend.ErrSilent, b.service.c.BackendConnectTimeout, err)
		}
		return nil, fmt.Errorf("%w: %w", backend.ErrTLS, err)
	}
	if err := lateAlert(ctx, secure); err != nil {
		raw.Close()
		return nil, fmt.Errorf("%w: %w", backend.ErrTLS, err)
	}
	conn := newRESPConn(secure)
	conn.peer = secure.ConnectionState().PeerCertificates
	return conn, nil
}

// alertTimeout is how long a backend has to refuse our client certificate after the handshake, which TLS 1.3 allows.
const alertTimeout = 200 * time.Millisecond

// lateAlert returns the alert that follows the handshake, if there is one. It has to be read before anything is written: a backend that
// closes with our bytes unread resets the connection, and the alert may be lost.
func lateAlert(ctx context.Context, secure *tls.Conn) error {
	secure.SetReadDeadline(time.Now().Add(alertTimeout))
	_, err := secure.Read(make([]byte, 1)) // nothing but an alert comes, since nothing was asked
	deadline, _ := ctx.Deadline()
	secure.SetReadDeadline(deadline)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return err
	}
	return nil
}

func isTimeout(err error) bool {
	nerr, ok := errors.AsType[net.Error](err)
	return ok && nerr.Timeout()
}

// turnedAway is backend.TurnedAway of a whole reply.
func turnedAway(reply string) error {
	line, isError := strings.CutPrefix(reply, "-")
	if !isError {
		return nil
	}
	return backend.TurnedAway(line)
}

func isBusyReply(reply string) bool {
	return strings.HasPrefix(reply, "-LOADING") || isFullReply(reply)
}

func isFullReply(reply string) bool { return strings.HasPrefix(reply, "-ERR max number of clients") }

// code is the first word of an error reply: the rest may quote what was sent.
func code(reply string) string {
	word, _, _ := strings.Cut(reply, " ")
	for _, r := range strings.TrimPrefix(word, "-") {
		if r < 'A' || r > 'Z' {
			return reply[:1]
		}
	}
	return word
}
