package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"dragontls/certs"
	"dragontls/config"
)

// maxProbes is how many addresses are asked at once.
const maxProbes = 16

// judgeAddress is judgeNetwork without the network: what can be seen of an address that is no name.
func (b *backendCheck) judgeAddress() {
	target, err := b.service.c.BackendTarget()
	if err != nil || target.Network != "tcp" || target.TLS {
		return
	}
	if ip, err := netip.ParseAddr(target.Host); err == nil && !b.isHere(ip) {
		b.inClear(target)
	}
}

func (b *backendCheck) inClear(target config.Backend) {
	b.add(certs.SeverityWarning, "backend_in_clear", target.Address, "commands, values and the password cross the network to the backend in clear",
		"give the backend a certificate and say rediss://, or run it on this machine")
}

// judgeNetwork says whether what goes to the backend crosses a network in clear, and where the backend runs on this
// machine, whether it can be reached in clear from another.
func (b *backendCheck) judgeNetwork(ctx context.Context, target config.Backend) {
	if target.Network != "tcp" || target.TLS {
		return
	}
	ips, err := b.resolve(ctx, target.Host)
	if err != nil {
		return // the dial will say so
	}
	if slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !b.isHere(ip) }) {
		b.inClear(target)
	}
	if slices.ContainsFunc(ips, b.isHere) {
		_, port, _ := net.SplitHostPort(target.Address)
		if open := b.openAddresses(ctx, port); len(open) > 0 {
			b.add(certs.SeverityError, "backend_exposed", target.Address,
				fmt.Sprintf("the backend answers in clear on %s too: past dragontls, from wherever that can be reached", strings.Join(open, ", ")),
				"have it listen on 127.0.0.1 or on a socket only (bind, unixsocket), or close the port to others")
		}
	}
}

func (b *backendCheck) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.service.c.BackendConnectTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// isHere tells an address of this machine. A dial of the unspecified one leads here, too.
func (b *backendCheck) isHere(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return ip.IsLoopback() || ip.IsUnspecified() ||
		slices.ContainsFunc(b.addresses(), func(own netip.Addr) bool { return own.WithZone("") == ip })
}

// openAddresses are those of this machine, loopback aside, where the port answers RESP in clear.
func (b *backendCheck) openAddresses(ctx context.Context, port string) []string {
	ctx, cancel := context.WithTimeout(ctx, b.service.c.BackendConnectTimeout)
	defer cancel()
	own := b.addresses()
	open := make([]bool, len(own))
	var probes sync.WaitGroup
	turn := make(chan struct{}, maxProbes)
	for i, ip := range own {
		turn <- struct{}{}
		probes.Go(func() { // ends with ctx at the latest
			defer func() { <-turn }()
			open[i] = answersInClear(ctx, net.JoinHostPort(ip.String(), port))
		})
	}
	probes.Wait()
	var list []string
	for i, ip := range own {
		if open[i] {
			list = append(list, net.JoinHostPort(ip.String(), port))
		}
	}
	return list
}

func answersInClear(ctx context.Context, address string) bool {
	conn, err := dialRESP(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	reply, err := conn.ask("PING")
	// Protected mode, a TLS port, or dragontls itself, whose listener has the same port on another address.
	return err == nil && code(reply) != "-DENIED" && !speaksOfTLS(reply) && !strings.HasPrefix(reply, "-ERR dragontls: ")
}

// localAddresses are those of this machine's interfaces, loopback aside.
func localAddresses() []netip.Addr {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var list []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || prefix.Addr().IsLoopback() {
				continue
			}
			ip := prefix.Addr().Unmap()
			if ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(i.Name)
			}
			list = append(list, ip)
		}
	}
	return list
}
