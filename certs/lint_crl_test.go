package certs

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// listOf is a list of ca, in hours from now.
func (f *fixture) listOf(ca *pki.CA, begin, end int) []byte {
	f.t.Helper()
	return f.crl(ca, pki.CRLOptions{ThisUpdate: time.Now().Add(time.Duration(begin) * time.Hour), NextUpdate: time.Now().Add(time.Duration(end) * time.Hour)})
}

func (f *fixture) intermediate(name string) *pki.CA {
	f.t.Helper()
	sub, err := f.ca.Intermediate(name)
	f.must(err)
	return sub
}

// crlLintCase is linted and shaken hands with: what Lint calls an error refuses, and nothing else does.
type crlLintCase struct {
	name  string
	setup func(f *fixture) (client tls.Certificate, list []byte)
	want  []string // severity and ID
	// refused is why a handshake of the client fails; empty: it does not.
	refused error
}

var crlLintCases = []crlLintCase{
	{"in date", func(f *fixture) (tls.Certificate, []byte) { return f.client, f.listOf(f.ca, -1, 23) }, nil, nil},
	{"a third is left", func(f *fixture) (tls.Certificate, []byte) { return f.client, f.listOf(f.ca, -17, 7) },
		[]string{"warning crl_expires_soon"}, nil},
	{"expired", func(f *fixture) (tls.Certificate, []byte) { return f.client, f.listOf(f.ca, -25, -1) },
		[]string{"error crl_expired"}, ErrCRLExpired},
	{"of tomorrow", func(f *fixture) (tls.Certificate, []byte) { return f.client, f.listOf(f.ca, 24, 48) },
		[]string{"error crl_not_yet_valid"}, ErrCRLEarly},
	{"of another key with the CA's name", func(f *fixture) (tls.Certificate, []byte) {
		return f.client, f.listOf(newCA(f.t, "root"), -1, 23)
	}, []string{"error crl_wrong_key"}, ErrNoCRL},
	{"of the CA's present and former key", func(f *fixture) (tls.Certificate, []byte) {
		return f.client, slices.Concat(f.listOf(newCA(f.t, "root"), -25, -1), f.listOf(f.ca, -1, 23))
	}, nil, nil},
	{"of one of two CAs with one name", func(f *fixture) (tls.Certificate, []byte) {
		next := newCA(f.t, "root")
		f.write("ca.crt", slices.Concat(f.ca.PEM(), next.PEM()))
		return f.clientOf(next), f.listOf(f.ca, -1, 23)
	}, []string{"error crl_missing"}, ErrNoCRL},
	{"of the intermediate that clients send", func(f *fixture) (tls.Certificate, []byte) {
		sub := f.intermediate("sub")
		return f.clientOf(sub), f.listOf(sub, -1, 23)
	}, []string{"warning crl_missing"}, nil},
	{"of the intermediate that clients send, and of the root", func(f *fixture) (tls.Certificate, []byte) {
		sub := f.intermediate("sub")
		return f.clientOf(sub), slices.Concat(f.listOf(sub, -1, 23), f.listOf(f.ca, -1, 23))
	}, nil, nil},
	{"of the intermediate that clients send, expired", func(f *fixture) (tls.Certificate, []byte) {
		sub := f.intermediate("sub")
		return f.clientOf(sub), slices.Concat(f.listOf(sub, -25, -1), f.listOf(f.ca, -1, 23))
	}, []string{"warning crl_expired"}, ErrCRLExpired},
	{"an expired one beside one in date", func(f *fixture) (tls.Certificate, []byte) {
		return f.client, slices.Concat(f.listOf(f.ca, -1, 23), f.listOf(f.ca, -49, -25), f.listOf(f.ca, -25, -1))
	}, nil, nil},
	{"one in date beside one of tomorrow", func(f *fixture) (tls.Certificate, []byte) {
		return f.client, slices.Concat(f.listOf(f.ca, 24, 48), f.listOf(f.ca, -1, 23))
	}, nil, nil},
	{"an expired one of a CA that was removed", func(f *fixture) (tls.Certificate, []byte) {
		return f.client, slices.Concat(f.listOf(f.ca, -1, 23), f.listOf(newCA(f.t, "removed"), -25, -1))
	}, []string{"warning crl_expired"}, nil},
	{"of another CA only", func(f *fixture) (tls.Certificate, []byte) {
		return f.client, f.listOf(newCA(f.t, "other"), -1, 23)
	}, []string{"warning crl_missing"}, ErrNoCRL},
	{"of another CA, and the intermediate in the bundle has none", func(f *fixture) (tls.Certificate, []byte) {
		sub := f.intermediate("sub")
		f.write("ca.crt", slices.Concat(f.ca.PEM(), sub.PEM()))
		return f.clientOf(sub), f.listOf(newCA(f.t, "other"), -1, 23)
	}, []string{"error crl_missing"}, ErrNoCRL},
	{"of the root only, above an intermediate in the bundle", func(f *fixture) (tls.Certificate, []byte) {
		sub := f.intermediate("sub")
		f.write("ca.crt", slices.Concat(f.ca.PEM(), sub.PEM()))
		return f.clientOf(sub), f.listOf(f.ca, -1, 23)
	}, []string{"error crl_missing"}, ErrNoCRL},
	{"of the intermediate in the bundle, the root's has expired", func(f *fixture) (tls.Certificate, []byte) {
		sub := f.intermediate("sub")
		f.write("ca.crt", slices.Concat(f.ca.PEM(), sub.PEM()))
		return f.clientOf(sub), slices.Concat(f.listOf(sub, -1, 23), f.listOf(f.ca, -25, -1))
	}, []string{"warning crl_expired"}, nil},
	{"of another CA where no intermediate can be", func(f *fixture) (tls.Certificate, []byte) {
		lone := mint(f.t, "lone", nil, nil, func(c *x509.Certificate) { c.MaxPathLenZero = true })
		f.trusts(lone)
		own, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1),
			ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(daily)}, lone.cert, lone.key)
		f.must(err)
		client := mint(f.t, "client", lone, nil, leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }))
		return tls.Certificate{Certificate: [][]byte{client.cert.Raw}, PrivateKey: client.key, Leaf: client.cert},
			slices.Concat(pemBlock("X509 CRL", own), f.listOf(newCA(f.t, "other"), -25, -1))
	}, []string{"warning crl_unproven"}, nil},
}

func TestLintJudgesCRLsAsAHandshakeDoes(t *testing.T) {
	for _, c := range crlLintCases {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			client, list := c.setup(f)
			f.withCRL(list)
			for _, f.opts.CRLWarn = range []bool{false, true} {
				s := f.open()
				o := LintOptions{Roots: x509.NewCertPool()}
				o.Roots.AppendCertsFromPEM(f.ca.PEM())
				found := Lint(s.Snapshot(), o)
				var got, wantIDsOnly []string
				for _, one := range found {
					got = append(got, string(one.Severity)+" "+one.ID)
					if one.Subject != f.path("ca.crl") {
						t.Errorf("of %s: %+v", one.Subject, one)
					}
				}
				for _, w := range c.want {
					_, id, _ := strings.Cut(w, " ")
					wantIDsOnly = append(wantIDsOnly, id)
				}
				wantIDs(t, found, wantIDsOnly...)
				if !slices.Equal(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if c.refused != nil && !f.opts.CRLWarn {
					f.wantRefused(s, client, c.refused)
				} else {
					f.wantAdmitted(s, client)
				}
			}
		})
	}
}

func TestLintWithoutACRLFileWantsNone(t *testing.T) {
	f := newFixture(t)
	wantIDs(t, Lint(f.open().Snapshot(), LintOptions{Roots: x509.NewCertPool()}))
}

func TestCurrentCRLsAreThoseWhoseDatesMatter(t *testing.T) {
	f := newFixture(t)
	other := newCA(t, "other")
	f.write("ca.crt", slices.Concat(f.ca.PEM(), other.PEM()))
	f.withCRL(slices.Concat(f.listOf(f.ca, -49, 1), f.listOf(f.ca, -1, 23), f.listOf(f.ca, 12, 60), f.listOf(other, -1, 2), f.listOf(newCA(t, "gone"), -25, -1)))
	s := f.open().Snapshot()
	for hours, want := range map[int][]int{0: {1, 3, 4}, 13: {2, 3, 4}, -2: {0, 3, 4}, -99: {0, 3, 4}, 99: {2, 3, 4}} {
		var wanted []CRL
		for _, i := range want {
			wanted = append(wanted, s.CRLs[i])
		}
		if got := s.CurrentCRLs(time.Now().Add(time.Duration(hours) * time.Hour)); !slices.Equal(got, wanted) {
			t.Errorf("in %d hours: got %+v, want %+v", hours, got, wanted)
		}
	}
}
