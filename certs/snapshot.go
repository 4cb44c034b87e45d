package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"dragontls/certs/identity"
)

// Snapshot is everything that one handshake is judged by and served with. It is
// immutable but for the OCSP responses stapled to its certificates; any number of
// goroutines may use it.
type Snapshot struct {
	// Generation grows by one with each swap for new content.
	Generation uint64
	// Trust is a digest of what is trusted: the set of client CAs, who is revoked
	// and the client auth mode. While it stays, sessions and tickets stay good.
	Trust [32]byte
	// TrustGeneration grows by one with each change of Trust.
	TrustGeneration uint64
	Certs           []Cert
	CRLs            []CRL
	LoadedAt        time.Time

	opts       *Options
	pairs      []*pair
	names      map[string][]*pair // by lower-case SAN, wildcards as they are
	clients    *bundle            // nil: no client CA configured
	login      login
	revocation *revocation // nil: no CRL configured
	master     []byte

	day    int64 // the day of config's first ticket key
	config *tls.Config
}

// Valid tells whether all server leafs are in date.
func (s *Snapshot) Valid(now time.Time) error {
	var all faults
	for _, p := range s.pairs {
		if f := checkDates(p.file, p.tls.Leaf, now); f != nil {
			all.add(f)
		}
	}
	return all.join()
}

// trustDigest does not depend on the order or the comments of the bundle.
func (s *Snapshot) trustDigest() [32]byte {
	var sums [][32]byte
	if s.clients != nil {
		for sum := range s.clients.known {
			sums = append(sums, sum)
		}
	}
	slices.SortFunc(sums, func(a, b [32]byte) int { return slices.Compare(a[:], b[:]) })
	h := sha256.New()
	fmt.Fprintf(h, "client auth %d\n", s.opts.ClientAuth)
	for _, sum := range sums {
		h.Write(sum[:])
	}
	if s.revocation != nil {
		fmt.Fprintf(h, "revocation %v\n", s.revocation.required)
		h.Write(s.revocation.digest[:])
	}
	if s.login.allow != nil {
		fmt.Fprintf(h, "allow %x\n", s.login.allow.Digest())
	}
	if s.login.users != nil {
		fmt.Fprintf(h, "users %x\n", s.login.users.Digest())
	}
	return [32]byte(h.Sum(nil))
}

// Users are the rules of the users file; nil: there is none.
func (s *Snapshot) Users() *identity.Users { return s.login.users }

func (s *Snapshot) indexNames() {
	s.names = make(map[string][]*pair)
	for _, p := range s.pairs {
		for _, name := range p.tls.Leaf.DNSNames {
			name = normalName(name)
			if !slices.Contains(s.names[name], p) {
				s.names[name] = append(s.names[name], p)
			}
		}
	}
}

func normalName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// withTicketKeys returns a copy of s whose config is ready with the keys of day d.
func (s *Snapshot) withTicketKeys(d int64) (*Snapshot, error) {
	keys, err := ticketKeys(s.master, s.Trust, d)
	if err != nil {
		return nil, err
	}
	t := *s
	t.day = d
	t.config = &tls.Config{
		MinVersion:                  t.opts.MinVersion,
		MaxVersion:                  t.opts.MaxVersion,
		CipherSuites:                aeadSuites,
		ClientAuth:                  asking(t.opts.ClientAuth),
		GetCertificate:              t.certificate,
		VerifyConnection:            t.verifyConnection,
		WrapSession:                 t.wrapSession,
		UnwrapSession:               t.unwrapSession,
		Time:                        t.opts.clock,
		DynamicRecordSizingDisabled: true, // 4 writes instead of 11 for the first 64 KiB
	}
	if t.clients != nil {
		t.config.ClientCAs = t.clients.pool
	}
	t.config.SetSessionTicketKeys(keys)
	return &t, nil
}

// asking leaves it to verifyConnection to verify what clients send: on its own,
// crypto/tls lets a client choose what that costs.
func asking(auth tls.ClientAuthType) tls.ClientAuthType {
	switch auth {
	case tls.RequireAndVerifyClientCert:
		return tls.RequireAnyClientCert
	case tls.VerifyClientCertIfGiven:
		return tls.RequestClientCert
	}
	return auth
}

// aeadSuites are all that TLS 1.2 clients are offered: CBC has been attacked
// again and again (RFC 9325, 4.2). crypto/tls has its own order, and TLS 1.3 knows
// nothing else.
var aeadSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// certificate returns the chosen pair, with the OCSP response it has now.
func (s *Snapshot) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.choose(hello).serve(s.opts.clock), nil
}

// choose takes among the pairs with the client's name, else among all, the first
// that the client supports; the first pair is the default.
func (s *Snapshot) choose(hello *tls.ClientHelloInfo) *pair {
	if len(s.pairs) == 1 {
		return s.pairs[0]
	}
	// SupportsCertificate would match the name again, and only against one pair.
	h := *hello
	h.ServerName = ""
	name := normalName(hello.ServerName)
	wild := ""
	if _, parent, ok := strings.Cut(name, "."); ok {
		wild = "*." + parent
	}
	for _, candidates := range [][]*pair{s.names[name], s.names[wild], s.pairs} {
		for _, p := range candidates {
			if h.SupportsCertificate(&p.tls) == nil {
				return p
			}
		}
	}
	return s.pairs[0]
}
