package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// handshake is a socket from accept until its client is verified. The goroutine that runs it owns it.
type handshake struct {
	server   *Server
	sock     *netio.Socket
	from     netip.Prefix // see originOf
	deadline time.Time
	helloIn  bool // the ClientHello has arrived: what follows takes computing, for which it needs a slot
	tooOld   bool // the client offered no TLS version that is served here
	hello    offer
	inPlaces

	alert tls.AlertError // the alert that the client sent unencrypted, or 0

	allowance allowance
}

// clientHello returns a GetConfigForClient callback. It notes in the handshake that the ClientHello has arrived, waits for a
// slot to compute in, and then asks inner, which may be nil, for the configuration.
func clientHello(inner func(*tls.ClientHelloInfo) (*tls.Config, error)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		var h *handshake
		if sock, ok := info.Conn.(*netio.Socket); ok {
			h, _ = sock.Handshake.(*handshake)
		}
		if h != nil {
			if err := h.startWork(); err != nil {
				return nil, err
			}
		}
		var c *tls.Config
		var err error
		if inner != nil {
			c, err = inner(info)
		}
		if h != nil {
			h.tooOld = !served(c, info.SupportedVersions)
			h.hello = offer{info.ServerName, info.SupportedVersions, info.CipherSuites}
		}
		return c, err
	}
}

// served reports whether c serves one of the versions; a nil c serves TLS 1.2 and 1.3.
func served(c *tls.Config, versions []uint16) bool {
	oldest, newest := uint16(tls.VersionTLS12), uint16(tls.VersionTLS13)
	if c != nil && c.MinVersion != 0 {
		oldest = c.MinVersion
	}
	if c != nil && c.MaxVersion != 0 {
		newest = c.MaxVersion
	}
	return slices.ContainsFunc(versions, func(v uint16) bool { return v >= oldest && v <= newest })
}

// noteAlert notes an unencrypted alert at the end of what was just read. OpenSSL's clients refuse the certificate of a TLS
// 1.3 server in this way, which crypto/tls reports as a bad record MAC.
func (h *handshake) noteAlert() {
	b := h.sock.Unread()
	if len(b) < len(alertHeader)+2 {
		return
	}
	b = b[len(b)-len(alertHeader)-2:]
	if bytes.HasPrefix(b, alertHeader) {
		h.alert = tls.AlertError(b[len(b)-1])
	}
}

// alertHeader begins an unencrypted record that holds an alert: its level and description follow (RFC 8446, 5.1 and 6).
var alertHeader = []byte{21, 3, 3, 0, 2}

// The socket calls the following methods, see netio.Handshake.

func (h *handshake) BeforeWait() error {
	// A peer that sends its flight in parts is slow, however often it sends one.
	h.server.pending.stop(h, h.allowance.flight > 0)
	return h.allowance.check()
}

func (h *handshake) AfterWait(n int) error {
	h.allowance.took(n)
	if !h.helloIn {
		return nil
	}
	h.noteAlert()
	return h.startWork()
}

func (h *handshake) Room() int  { return h.allowance.room() }
func (h *handshake) Answering() { h.allowance.answered() }
func (h *handshake) Stalled()   { h.server.pending.stop(h, true) }

// run performs the handshake and, if it succeeds, starts the session, or tells the client why it gets none.
func (h *handshake) run() {
	s := h.server
	start := time.Now()
	h.sock.Handshake = h
	conn := tls.Server(h.sock, s.tls)
	h.deadline = start.Add(s.settings.Load().handshakeTimeout)
	h.sock.SetDeadline(h.deadline)
	var err error
	if s.sendsProxyHeader(h.sock.RemoteAddr()) {
		err = h.readProxyHeader()
	}
	if err == nil {
		err = conn.HandshakeContext(context.Background())
	}
	var n *session
	var refused closeReason
	if err == nil {
		if n, refused = s.register(h, conn); n == nil && refused == "" {
			err = net.ErrClosed // it lost its place during its last write
		}
	}
	// A refused socket keeps its place until it is closed. Meanwhile it may lose it, like a handshake that waits for its peer.
	s.pending.stop(h, true)
	defer s.pending.remove(h)
	h.sock.Handshake = nil
	st := conn.ConnectionState()
	key := HandshakeKey{Reason: handshakeOK, Version: versionName(st.Version), Resumed: st.DidResume}
	if err != nil {
		key = HandshakeKey{Reason: h.reason(err), Version: versionName(st.Version)}
		h.notify(key.Reason, false, err, &st)
	}
	s.handshakes.add(key)
	if err != nil {
		h.fail(key.Reason, err, &st)
		return
	}
	s.handshakes.seconds.observe(time.Since(start), 1)
	h.sock.SetDeadline(time.Time{})
	if refused != "" {
		s.turnAway(h, conn, refused)
		return
	}
	s.startSession(n, &st)
}

// fail logs why a handshake failed and closes the socket. It answers a client that speaks no TLS with an error, and gives one
// that was sent an alert time to receive it.
func (h *handshake) fail(reason string, err error, st *tls.ConnectionState) {
	if h.alert != 0 {
		err = fmt.Errorf("remote error: %w", h.alert)
	}
	h.logRefused(reason, err, st)
	defer h.sock.Close()
	defer h.sock.Release()
	switch reason {
	case handshakeEvicted, handshakeEvictedWaiting, handshakeEvictedShare,
		handshakeTimeout, handshakeClosed, handshakeClientAlert, handshakeTooBig, handshakeProxyHeader:
		return
	case handshakePlaintext:
		h.sock.WriteTimeout = h.server.c.lingerTimeout
		h.sock.SetDeadline(time.Time{})
		_, _ = h.sock.Write(textPlaintext)
	}
	h.linger()
}

// linger tells the client that nothing more comes, and drops what it still sends, for a while. A client may have sent its first
// command before it reads why it is refused. Closing the socket with that unread would send a reset, and the client might never see
// the reason.
func (h *handshake) linger() {
	h.sock.CloseWrite()
	h.sock.SetReadDeadline(time.Now().Add(h.server.c.lingerTimeout))
	io.Copy(io.Discard, io.LimitReader(h.sock, 1<<20))
}

var textPlaintext = resp.AppendError(nil, "ERR dragontls: this port speaks TLS only, connect with TLS and a client certificate")

// reason returns why a handshake failed, as the label of a metric.
func (h *handshake) reason(err error) string {
	var (
		header  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		tooBig  *tooBigError
		op      *net.OpError
	)
	if lost := h.server.pending.lostBy(h); lost != "" {
		return lost
	}
	switch {
	case isProxyHeaderError(err):
		return handshakeProxyHeader
	case errors.As(err, &header) && header.Conn != nil:
		return handshakePlaintext
	case errors.As(err, &tooBig):
		return handshakeTooBig
	case refusalReason(err) != "":
		return refusalReason(err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if invalid.Cert != nil && time.Now().Before(invalid.Cert.NotBefore) {
			return handshakeNotYetValid
		}
		return handshakeExpired
	case errors.As(err, &unknown):
		return handshakeUnknownCA
	case errors.As(err, &verify):
		return handshakeBadCert
	case errors.Is(err, os.ErrDeadlineExceeded):
		return handshakeTimeout
	case h.alert != 0, errors.As(err, &op) && op.Op == "remote error":
		return handshakeClientAlert
	case h.helloIn && h.tooOld:
		return handshakeVersion
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return handshakeClosed
	}
	return untypedReason(err.Error())
}

// untypedReason recognises by their texts the errors about what a client has sent that have no type in crypto/tls.
// TestHandshakeReasons fails when these texts change. Some end in words that the client chose, so only the beginning counts.
func untypedReason(text string) string {
	begins := func(with string) bool { return strings.HasPrefix(text, with) }
	switch {
	case begins("tls: no cipher suite supported by both client and server"):
		return handshakeCipher
	case begins("tls: client didn't provide a certificate"):
		return handshakeNoCertificate
	case begins("tls: client sent certificate containing RSA key larger than "): // 8192 bits; no callback sees it
		return handshakeKeyTooBig
	case begins("tls: failed to parse client certificate: "), begins("tls: client certificate contains an unsupported public key "):
		return handshakeBadCert
	}
	return handshakeOther
}

func versionName(v uint16) string {
	switch v {
	case tls.VersionTLS12:
		return "1.2"
	case tls.VersionTLS13:
		return "1.3"
	}
	return ""
}

// handshakeCounts counts handshakes by their outcome. Safe for concurrent use.
type handshakeCounts struct {
	mu      sync.Mutex
	m       map[HandshakeKey]uint64
	seconds histogram
}

func (c *handshakeCounts) add(k HandshakeKey) {
	c.mu.Lock()
	if c.m == nil {
		c.m = make(map[HandshakeKey]uint64)
	}
	c.m[k]++
	c.mu.Unlock()
}

func (c *handshakeCounts) snapshot() map[HandshakeKey]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[HandshakeKey]uint64, len(c.m))
	for k, v := range c.m {
		m[k] = v
	}
	return m
}
