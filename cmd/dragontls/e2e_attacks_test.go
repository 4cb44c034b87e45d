//go:build unix

package main

import (
	"crypto/elliptic"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"time"
)

const (
	greedyKey   = "big"
	greedyValue = 200 << 10
)

var attacks = []attack{
	{name: "25 hostile handshakes a second", protocol: "2", attackers: 500, pace: 25,
		mark: []string{"handshakes_total", "reason", "chain_too_long"}, prepare: hostileHandshakes},
	{name: "80 hostile handshakes a second", protocol: "2", attackers: 500, pace: 80,
		mark: []string{"handshakes_total", "reason", "chain_too_long"}, prepare: hostileHandshakes},
	{name: "16 sessions that read nothing", protocol: "2", attackers: 16, pace: 100, first: 16, prepare: readNothing},
	{name: "1000 sessions with junk chains", protocol: "2", attackers: 1000, pace: 200, first: 1000,
		mark: []string{"handshakes_total", "reason", "handshake_too_big"}, prepare: junkChains},
	{name: "1000 half Certificate messages", protocol: "2", attackers: 1000, pace: 200, first: 1000,
		mark: []string{"handshakes_total", "reason", "evicted_waiting"}, prepare: halfCertificates},
	{name: "1000 half records", protocol: "2", attackers: 1000, pace: 200, first: 1000,
		mark: []string{"sessions_closed_total", "reason", "memory_limit"}, prepare: halfRecords},
	{name: "1000 sockets that trickle", protocol: "2", attackers: 1200, pace: 200, first: 1000,
		mark: []string{"handshakes_total", "reason", "evicted"}, prepare: trickle},
	{name: "pushes to shared connections", protocol: "3", sharedOnly: true, attackers: 8, pace: 20, first: 8,
		mark: []string{"backend_errors_total", "reason", "push"}, prepare: pushes},
}

// hostileHandshakes returns the handshake of a client that no real CA knows. It sends CAs that all have one name and one
// key, so that they can be chained in many ways.
func hostileHandshakes(p *instance, seed uint64) func(*rand.Rand, func()) {
	j := newJunk(p, seed)
	long, wide := rsaKey(p.t, 4096), ecKey(p.t, elliptic.P521())
	var all []tls.Certificate
	for n := range 8 {
		all = append(all, j.stranger(4*n, wide, 8), j.stranger(4*n+1, long, 8), j.stranger(4*n+2, long, 3), j.stranger(4*n+3, j.keys[n%len(j.keys)], 3))
	}
	config := p.clientTLS()
	return func(r *rand.Rand, did func()) {
		c := config.Clone()
		c.MaxVersion = uint16(tls.VersionTLS12 + r.IntN(2))
		pair := &all[r.IntN(len(all))]
		c.Certificates, c.GetClientCertificate = nil, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
		if _, err := handshake(p.addr, c); err == nil {
			panic("a stranger was let in")
		}
		did()
	}
}

// readNothing returns a session that asks for much, all at once or little by little, and reads nothing. Replies that the
// proxy does not take yet wait in redis-server, which has no limit for them; that is why a session asks for 60 MiB at most.
func readNothing(p *instance, _ uint64) func(*rand.Rand, func()) {
	config := p.tlsAs(attackerName, tls.VersionTLS13)
	return func(r *rand.Rand, did func()) {
		c := tls.Client(p.dial(), config)
		defer c.NetConn().Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		most := 1 + r.IntN(100)
		for asked := 0; asked < 200; {
			n := 1 + r.IntN(most)
			if _, err := io.WriteString(c, strings.Repeat(array("GET", greedyKey), n)); err != nil {
				return
			}
			asked += n
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		}
		did()
		time.Sleep(time.Duration(r.Int64N(int64(4 * time.Second))))
	}
}

// junkChains returns a session that sends junk CAs after its leaf, and stays. One in ten sends more than the proxy reads.
func junkChains(p *instance, seed uint64) func(*rand.Rand, func()) {
	j := newJunk(p, seed)
	chains := make([][][]byte, 300)
	for i := range chains {
		chains[i] = j.chain(i)
	}
	configs := []*tls.Config{p.tlsAs(attackerName, tls.VersionTLS12), p.tlsAs(attackerName, tls.VersionTLS13)}
	return func(r *rand.Rand, did func()) {
		chain := chains[r.IntN(len(chains))]
		tooMuch := r.IntN(10) == 0
		for n := 0; tooMuch && n < 100<<10; n += len(chain[0]) {
			chain = append(chain[:len(chain):len(chain)], chain[0])
		}
		c := tls.Client(p.dial(), sending(configs[r.IntN(2)], chain))
		c.Handshake()
		did()
		if !tooMuch {
			keep(c, r, 20*time.Second)
		}
		c.Close()
	}
}

// halfCertificates returns a socket that stops in the middle of the flight that holds its certificates, and stays.
func halfCertificates(p *instance, seed uint64) func(*rand.Rand, func()) {
	j := newJunk(p, seed)
	config := sending(p.tlsAs(attackerName, tls.VersionTLS13), j.chain(0))
	large := sending(p.tlsAs(attackerName, tls.VersionTLS12), append(j.chain(1), make([]byte, 100<<10)))
	return func(r *rand.Rand, did func()) {
		c := &halving{Conn: p.dial(), r: r}
		pick := config
		if r.IntN(2) == 0 {
			pick = large
		}
		tls.Client(c, pick).Handshake()
		did()
		keep(c.Conn, r, 20*time.Second)
	}
}

// halving is a net.Conn that sends only a part of the second write, and nothing afterwards.
type halving struct {
	net.Conn
	r      *rand.Rand
	writes int
}

func (c *halving) Write(p []byte) (int, error) {
	c.writes++
	switch c.writes {
	case 1:
		return c.Conn.Write(p)
	case 2:
		n, _ := c.Conn.Write(p[:1+c.r.IntN(len(p)-1)])
		return n, io.ErrShortWrite
	}
	return 0, io.ErrShortWrite
}

// halfRecords returns a session that sends the header of the longest record and a few bytes of it, and stays.
func halfRecords(p *instance, _ uint64) func(*rand.Rand, func()) {
	config := p.tlsAs(attackerName, tls.VersionTLS13)
	return func(r *rand.Rand, did func()) {
		c := tls.Client(p.dial(), config)
		if c.Handshake() == nil {
			c.NetConn().Write(append([]byte{23, 3, 3, 0x40, 0x11}, make([]byte, 1+r.IntN(100))...))
		}
		did()
		keep(c, r, 20*time.Second)
	}
}

// trickle returns a socket that sends one byte of a ClientHello every 50 ms.
func trickle(p *instance, _ uint64) func(*rand.Rand, func()) {
	return func(r *rand.Rand, did func()) {
		c := p.dial()
		defer c.Close()
		// A handshake record of 512 bytes with a ClientHello of 508.
		_, err := c.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252}[:1+r.IntN(9)])
		did()
		for n := 0; err == nil && n < 500; n++ {
			time.Sleep(50 * time.Millisecond)
			_, err = c.Write([]byte{3})
		}
	}
}

var resp3Client = regexp.MustCompile(`(?m)^id=(\d+) .* resp=3`)

// pushes returns a session that has Redis push to a connection of somebody else, and then writes ten keys.
func pushes(p *instance, _ uint64) func(*rand.Rand, func()) {
	config := p.tlsAs(attackerName, tls.VersionTLS13)
	return func(r *rand.Rand, did func()) {
		c := p.live(config)
		defer c.Close()
		found := resp3Client.FindAllStringSubmatch(c.ask("CLIENT", "LIST"), -1)
		if len(found) > 0 && c.ask("CLIENT", "TRACKING", "ON", "REDIRECT", found[r.IntN(len(found))][1], "BCAST") == "+OK" {
			for range 10 {
				c.ask("SET", fmt.Sprint("pushed-", r.IntN(1000)), "x")
			}
		}
		did()
	}
}
