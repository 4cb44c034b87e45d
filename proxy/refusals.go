package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"dragontls/proxy/backend"
	"dragontls/proxy/limit"
	"dragontls/proxy/netio"
)

const (
	// maxShownName is how many bytes of a name that a client has sent stand in a log line: as many as a DNS name has at most.
	maxShownName = 255
	// maxShownError is how many bytes of an error do, which may quote names too.
	maxShownError = 1024
	// maxShownSANs is how many alternative names of a certificate do.
	maxShownSANs = 8
	// maxShownSerial is how many hexadecimal digits of a serial number do: RFC 5280 (4.1.2.2) allows 20 bytes.
	maxShownSerial = 40
	// maxShownOffers is how many versions or cipher suites that a client has offered do.
	maxShownOffers = 32
)

// offer is what a ClientHello says that explains why a handshake failed.
type offer struct {
	name     string // SNI
	versions []uint16
	suites   []uint16
}

// refusals write the log lines of refused handshakes, MaxLines a second for each reason and MaxLinesOfOne for each origin of
// handshakes. Safe for concurrent use.
type refusals struct {
	mu sync.Mutex
	of map[string]*limit.Lines[netip.Prefix] // by reason, of which there are few; guarded by mu
}

func (r *refusals) lines(reason string) *limit.Lines[netip.Prefix] {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.of[reason]
	if l == nil {
		if r.of == nil {
			r.of = make(map[string]*limit.Lines[netip.Prefix])
		}
		l = new(limit.Lines[netip.Prefix])
		r.of[reason] = l
	}
	return l
}

// refusalLevel returns the level of the log lines of a reason.
func refusalLevel(reason string) zerolog.Level {
	switch reason {
	case handshakeClosed, // port scans and health checks of load balancers
		handshakeEvicted, handshakeEvictedWaiting, handshakeEvictedShare: // limitHandshakes tells of them
		return zerolog.DebugLevel
	}
	return zerolog.InfoLevel
}

// describe adds to a log line whose handshake this is.
func (h *handshake) describe(e *zerolog.Event) {
	e.Stringer("remote", h.sock.RemoteAddr())
	if balancer := h.sock.Balancer(); balancer != nil {
		e.Stringer("balancer", balancer)
	}
}

// logRefused logs why the handshake was refused, and by which certificate and server name its client is known.
func (h *handshake) logRefused(reason string, err error, st *tls.ConnectionState) {
	s := h.server
	level := refusalLevel(reason)
	if s.log.GetLevel() > level || !s.refusals.lines(reason).Pass(s.now(), h.from) {
		return
	}
	e := s.log.WithLevel(level).Str("reason", reason)
	h.describe(e)
	if h.hello.name != "" {
		e.Str("sni", shownText(h.hello.name))
	}
	if cert := shownCertificate(err, st); cert != nil {
		describeCertificate(e, cert)
	}
	text := err.Error()
	switch reason {
	case handshakeVersion:
		e.Strs("offered", shownOffers(h.hello.versions, tls.VersionName))
		text = withoutNumbers(text)
	case handshakeCipher:
		e.Strs("offered", shownOffers(h.hello.suites, tls.CipherSuiteName))
		text = withoutNumbers(text)
	}
	e.Str(zerolog.ErrorFieldName, cleaned(text, maxShownError)).Msg("handshake refused")
}

// withoutNumbers cuts off where an error of crypto/tls begins to list what a client has offered, as hexadecimal numbers:
// "tls: client offered only unsupported versions: [302 301]".
func withoutNumbers(text string) string {
	text, _, _ = strings.Cut(text, ": [")
	return text
}

// tellMore logs how many of the lines were left out that are written limit.MaxLines a second at most. The sweeper calls it.
func (s *Server) tellMore() {
	now := s.now()
	s.refusals.mu.Lock()
	more := make(map[string]uint64)
	for reason, l := range s.refusals.of {
		if n := l.TakeMore(now); n > 0 {
			more[reason] = n
		}
	}
	s.refusals.mu.Unlock()
	for reason, n := range more {
		s.log.WithLevel(refusalLevel(reason)).Str("reason", reason).Uint64("more", n).Msg("and more handshakes refused")
	}
	for by := range deniedKinds {
		if n := s.denials[by].lines.TakeMore(now); n > 0 {
			s.log.Info().Stringer("by", by).Uint64("more", n).Msg("and more commands denied")
		}
	}
	for message, l := range map[string]*limit.Lines[netio.QuotaKey]{
		"and more wrong passwords of clients":                    &s.passwordLines,
		"and more clients whose users get no backend connection": &s.userLines,
		"and more replies that nobody asked for":                 &s.unaskedLines,
	} {
		if n := l.TakeMore(now); n > 0 {
			s.log.Warn().Uint64("more", n).Msg(message)
		}
	}
}

// shownCertificate returns the certificate of its own that a client has shown, as far as it could be read, or nil.
func shownCertificate(err error, st *tls.ConnectionState) *x509.Certificate {
	if len(st.PeerCertificates) > 0 {
		return st.PeerCertificates[0]
	}
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(v.UnverifiedCertificates) > 0 {
		return v.UnverifiedCertificates[0]
	}
	return nil
}

// describeCertificate adds to a log line what identifies a certificate. The client may have made it up, so every part is cleaned and
// bounded.
func describeCertificate(e *zerolog.Event, cert *x509.Certificate) {
	sum := sha256.Sum256(cert.Raw)
	serial := cert.SerialNumber.Text(16)
	e.Str("subject", shownText(cert.Subject.String())).Str("issuer", shownText(cert.Issuer.String())).
		Str("serial", serial[:min(len(serial), maxShownSerial)]).Str("sha256", hex.EncodeToString(sum[:]))
	var sans []string
	for _, name := range cert.DNSNames {
		sans = append(sans, "dns:"+name)
	}
	for _, uri := range cert.URIs {
		sans = append(sans, "uri:"+uri.String())
	}
	for _, address := range cert.EmailAddresses {
		sans = append(sans, "email:"+address)
	}
	for _, ip := range cert.IPAddresses {
		sans = append(sans, "ip:"+ip.String())
	}
	if n := len(sans) - maxShownSANs; n > 0 {
		e.Int("more_sans", n)
		sans = sans[:maxShownSANs]
	}
	for i := range sans {
		sans[i] = shownText(sans[i])
	}
	if len(sans) > 0 {
		e.Strs("sans", sans)
	}
}

// shownText returns a name as it may stand in a log line.
func shownText(text string) string { return cleaned(text, maxShownName) }

// cleaned returns no more than most bytes of the text, with "?" in place of each byte or character that does not print.
func cleaned(text string, most int) string {
	const cut = "..."
	long := len(text) > most
	if long {
		text = text[:most-len(cut)]
	}
	text = backend.OnlyPrintable(text)
	if long {
		text += cut
	}
	return text
}

// shownOffers returns the names of what a client has offered. Those without a name, which clients add to keep servers tolerant
// (RFC 8701), are left out.
func shownOffers(offered []uint16, name func(uint16) string) []string {
	names := make([]string, 0, len(offered))
	for _, id := range offered[:min(len(offered), maxShownOffers)] {
		if text := name(id); !strings.HasPrefix(text, "0x") {
			names = append(names, text)
		}
	}
	return slices.Compact(names)
}
