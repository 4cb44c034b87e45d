package main

import (
	"fmt"
	"net/netip"
	"strings"

	"dragontls/certs/identity"
)

// pick reports whether a session with that identity and address, as they are shown, is meant.
type pick func(identity, address string) bool

// newPick reads a pattern of identities, in which each * stands for any text, or an address: an IP address, one with a port, or a network.
// One of them is empty.
func newPick(pattern, address string) (pick, error) {
	if address == "" {
		kind, _, ok := strings.Cut(pattern, ":")
		if pattern != "*" && (!ok || kind == "") {
			return nil, fmt.Errorf("identity %q: want one as the list of sessions shows it, such as cn:web-1 or dns:*.apps.internal, or * for all", printable(pattern))
		}
		return func(name, _ string) bool { return identity.MatchName(pattern, name) }, nil
	}
	if network, err := netip.ParsePrefix(address); err == nil {
		return func(_, from string) bool { return network.Contains(hostOf(from)) }, nil
	}
	if host, err := netip.ParseAddr(address); err == nil {
		return func(_, from string) bool { return hostOf(from) == host.Unmap() }, nil
	}
	if peer, err := netip.ParseAddrPort(address); err == nil {
		return func(_, from string) bool {
			at, err := netip.ParseAddrPort(from)
			return err == nil && at.Port() == peer.Port() && at.Addr().Unmap() == peer.Addr().Unmap()
		}, nil
	}
	return nil, fmt.Errorf("address %q: want an IP address, with or without a port, or a network such as 10.1.0.0/16", printable(address))
}

// hostOf returns the IP address of an address with a port, or an invalid one, which equals no other and is in no network.
func hostOf(address string) netip.Addr {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// isAddress reports whether a word is an address to newPick: no identity looks like one.
func isAddress(word string) bool {
	_, err := newPick("", word)
	return err == nil
}
