package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	proxyproto "github.com/pires/go-proxyproto"

	"dragontls/proxy/netio"
)

// A load balancer of Config.ProxyFrom begins each connection with a header of the PROXY protocol (version 1 or 2), which says for which
// client it has opened it. The header is read in the goroutine of the handshake: its bytes and its time are those of the handshake. Until
// it has come, the socket counts as one of the balancer's among the places; then it belongs to the client, for all that follows. A
// header that names no TCP client leaves the balancer's address: LOCAL (a health check), UNSPEC or UNKNOWN, and Unix sockets.

const (
	// maxProxyHeader is the longest header that is read. One with two addresses takes at most 107 bytes in version 1 and 52 in version
	// 2, where the rest is for extensions (TLV), such as a client's certificate.
	maxProxyHeader = 4 << 10
	// v2Fixed is what comes before the addresses in version 2: signature, command, family and length.
	v2Fixed = 16
)

// proxyHeaderError is why a header is refused. Its text holds nothing that the peer has sent.
type proxyHeaderError struct{ what string }

func (e *proxyHeaderError) Error() string { return "PROXY protocol: " + e.what }

var (
	errNoProxyHeader = &proxyHeaderError{"a peer of PROXY_PROTOCOL_FROM sent something else than a header"}
	errProxyTooLong  = &proxyHeaderError{fmt.Sprintf("the header is longer than %d bytes", maxProxyHeader)}
	errBadProxyLine  = &proxyHeaderError{"the header of version 1 has no end"}
)

// sendsProxyHeader reports whether a peer is one that must send a header.
func (s *Server) sendsProxyHeader(peer net.Addr) bool {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok || len(s.c.ProxyFrom) == 0 {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(s.c.ProxyFrom, func(from netip.Prefix) bool { return from.Contains(ip) })
}

// readProxyHeader reads the header of a balancer, and makes the client that it names the peer of the socket.
func (h *handshake) readProxyHeader() error {
	header, err := takeProxyHeader(bareReader{h.sock})
	if err != nil {
		return err
	}
	client, err := parseProxyHeader(header)
	if err != nil {
		return err
	}
	h.allowance.flight = len(h.sock.Unread()) // the header is no part of the client's first flight
	if client.IsValid() {
		h.sock.SetRemote(net.TCPAddrFromAddrPort(client))
		h.server.pending.reassign(h, originOf(h.sock.RemoteAddr()))
	}
	return nil
}

// bareReader reads what comes before TLS.
type bareReader struct{ sock *netio.Socket }

func (r bareReader) Read(p []byte) (int, error) { return r.sock.ReadBare(p) }

// takeProxyHeader reads a header and not a byte more. It returns a *proxyHeaderError if what comes is none, as soon as that shows.
func takeProxyHeader(r io.Reader) ([]byte, error) {
	b := make([]byte, 1, v2Fixed)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	switch b[0] {
	case proxyproto.SIGV1[0]:
		return takeProxyLine(r, b)
	case proxyproto.SIGV2[0]:
	default:
		return nil, errNoProxyHeader
	}
	for len(b) < v2Fixed {
		var err error
		if b, err = readByte(r, b); err != nil {
			return nil, err
		}
		if n := len(b); n <= len(proxyproto.SIGV2) && b[n-1] != proxyproto.SIGV2[n-1] {
			return nil, errNoProxyHeader
		}
	}
	length := int(binary.BigEndian.Uint16(b[v2Fixed-2:]))
	if v2Fixed+length > maxProxyHeader {
		return nil, errProxyTooLong
	}
	b = append(b, make([]byte, length)...)
	_, err := io.ReadFull(r, b[v2Fixed:])
	return b, err
}

// takeProxyLine reads the rest of a header of version 1, of which b is the first byte.
func takeProxyLine(r io.Reader, b []byte) ([]byte, error) {
	const longest = 107 // with its CR LF, says the specification
	for b[len(b)-1] != '\n' {
		if len(b) == longest {
			return nil, errBadProxyLine
		}
		var err error
		if b, err = readByte(r, b); err != nil {
			return nil, err
		}
		if n := len(b); n <= len(proxyproto.SIGV1) && b[n-1] != proxyproto.SIGV1[n-1] {
			return nil, errNoProxyHeader
		}
	}
	return b, nil
}

func readByte(r io.Reader, b []byte) ([]byte, error) {
	var one [1]byte
	if _, err := io.ReadFull(r, one[:]); err != nil {
		return b, err
	}
	return append(b, one[0]), nil
}

// parseProxyHeader returns the client that a whole header names. It is not valid if the header names none.
func parseProxyHeader(b []byte) (client netip.AddrPort, err error) {
	if len(b) >= v2Fixed && b[0] == proxyproto.SIGV2[0] && isProxyUnspec(b) {
		return netip.AddrPort{}, nil
	}
	header, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
	if err != nil {
		return netip.AddrPort{}, &proxyHeaderError{"the header is malformed: " + rootOf(err).Error()}
	}
	if source, ok := header.SourceAddr.(*net.TCPAddr); ok && !header.Command.IsLocal() {
		client = source.AddrPort()
	}
	return client, nil
}

// isProxyUnspec reports whether a header of version 2 has the command PROXY and the family UNSPEC, which package proxyproto takes for
// a fault, and the specification for an unknown client.
func isProxyUnspec(b []byte) bool {
	return b[12] == byte(proxyproto.PROXY) && b[13] == byte(proxyproto.UNSPEC)
}

// rootOf returns the first error of err's chain that package proxyproto has made: what it wraps may quote the header.
func rootOf(err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		if all := many.Unwrap(); len(all) > 0 {
			return all[0]
		}
	}
	return err
}

func isProxyHeaderError(err error) bool {
	_, bad := errors.AsType[*proxyHeaderError](err)
	return bad
}
