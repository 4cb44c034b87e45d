package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fewKeys are all keys of the generated PKIs: CAs that share a key or a name are
// what makes chains differ.
var fewKeys = sync.OnceValue(func() []crypto.Signer {
	var keys []crypto.Signer
	for range 5 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})

// generatedPKI is a random tangle of CAs, and a client's leaf below one of them.
type generatedPKI struct {
	r      *mathrand.Rand
	now    time.Time
	serial int64
	cas    []generatedCA
}

type generatedCA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (p *generatedPKI) one(n int) bool { return p.r.IntN(n) == 0 }

// dates: most are in date, some begin or end on either side of now.
func (p *generatedPKI) dates() (begin, end time.Time) {
	begin, end = p.now.Add(-100*time.Hour), p.now.Add(100*time.Hour)
	if p.one(5) {
		begin = p.now.Add(time.Duration(p.r.IntN(5)-2) * time.Hour)
	}
	if p.one(5) {
		end = p.now.Add(time.Duration(p.r.IntN(5)-2) * time.Hour)
	}
	return begin, end
}

func (p *generatedPKI) template() *x509.Certificate {
	p.serial++
	t := &x509.Certificate{SerialNumber: big.NewInt(p.serial)}
	t.NotBefore, t.NotAfter = p.dates()
	switch p.r.IntN(8) {
	case 0:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case 1:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	case 2, 3:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return t
}

// issue signs t by one of the CAs, or by itself. The signer's name is not always
// the one that its certificate bears, and its key identifier not always right.
func (p *generatedPKI) issue(t *x509.Certificate, key crypto.Signer, self bool) *x509.Certificate {
	parent, signer := t, key
	if !self && len(p.cas) > 0 {
		ca := p.cas[p.r.IntN(len(p.cas))]
		parent, signer = ca.cert, ca.key
	}
	if p.one(6) { // names a CA and is signed by somebody else
		signer = fewKeys()[p.r.IntN(len(fewKeys()))]
	}
	named := *parent
	named.PublicKey = nil
	switch p.r.IntN(6) {
	case 0:
		named.SubjectKeyId = nil
	case 1:
		named.SubjectKeyId = []byte{byte(p.r.IntN(5))}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, &named, key.Public(), signer)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

func (p *generatedPKI) addCA() {
	i := p.r.IntN(len(fewKeys()))
	t := p.template()
	t.Subject = pkix.Name{CommonName: fmt.Sprint("CA ", p.r.IntN(3))}
	t.IsCA, t.BasicConstraintsValid = !p.one(12), true
	t.MaxPathLen = -1
	if t.IsCA && p.one(4) {
		t.MaxPathLen = p.r.IntN(2)
		t.MaxPathLenZero = true
	}
	t.SubjectKeyId = []byte{byte(i)}
	if p.one(4) {
		t.SubjectKeyId = nil
	}
	switch p.r.IntN(8) {
	case 0:
		t.PermittedDNSDomains = []string{"apps.internal"}
	case 1:
		t.ExcludedDNSDomains = []string{"apps.internal"}
	case 2, 3:
		t.DNSNames = []string{fmt.Sprint("ca", p.r.IntN(2), ".apps.internal")}
	}
	key := fewKeys()[i]
	p.cas = append(p.cas, generatedCA{p.issue(t, key, p.one(3)), key})
}

func (p *generatedPKI) leaf() *x509.Certificate {
	t := p.template()
	t.Subject = pkix.Name{CommonName: "client"}
	if p.one(2) {
		t.DNSNames = []string{"web.apps.internal"}
	}
	return p.issue(t, fewKeys()[0], false)
}

// referenceChains is what crypto/tls asked of crypto/x509.
func referenceChains(b *bundle, sent []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	o := x509.VerifyOptions{
		Roots: b.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, cert := range sent[1:] {
		o.Intermediates.AddCert(cert)
	}
	return sent[0].Verify(o)
}

// limitedChains does what judgeSent does.
func limitedChains(b *bundle, sent []*x509.Certificate, live bool, now time.Time) (chains [][]*x509.Certificate, c *client, err error) {
	c = b.read(sent)
	chains, err = b.verify(c, live, now)
	if b.prove(c, live) {
		chains, err = b.verify(c, live, now)
	}
	return chains, c, err
}

func textOf(chains [][]*x509.Certificate) string {
	var all []string
	for _, chain := range chains {
		var one []string
		for _, cert := range chain {
			one = append(one, cert.SerialNumber.String())
		}
		all = append(all, strings.Join(one, " < "))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// agreement counts what a run of the differential test compared.
type agreement struct{ accepted, refused, limited int }

// compare builds a PKI from a seed, and holds our chains against crypto/x509's,
// at several moments and with what was remembered of the moments before.
func (a *agreement) compare(t *testing.T, seed uint64) {
	p := &generatedPKI{r: mathrand.New(mathrand.NewPCG(seed, 0)), now: time.Now().Truncate(time.Second)}
	for range 3 + p.r.IntN(6) {
		p.addCA()
	}
	b := newBundle()
	for range 1 + p.r.IntN(3) {
		if ca := p.cas[p.r.IntN(len(p.cas))].cert; ca.IsCA && !b.holds(ca) {
			b.add(ca)
		}
	}
	sent := []*x509.Certificate{p.leaf()}
	for _, i := range p.r.Perm(len(p.cas))[:min(p.r.IntN(maxSent), len(p.cas))] {
		sent = append(sent, p.cas[i].cert)
	}
	for _, ahead := range []time.Duration{0, 0, -2 * time.Hour, time.Hour + time.Second, time.Hour, 0} {
		for _, live := range []bool{false, true} {
			now := p.now.Add(ahead)
			want, wantErr := referenceChains(b, sent, now)
			got, c, err := limitedChains(b, sent, live, now)
			switch {
			case (err == nil) != (len(got) > 0):
				t.Fatalf("seed %d: %d chains and %v", seed, len(got), err)
			case c.untried != "" || errors.Is(err, ErrChainTooComplex):
				a.limited++
				for _, chain := range got {
					if !strings.Contains(textOf(want), textOf([][]*x509.Certificate{chain})) {
						t.Fatalf("seed %d: the chain %s is none of crypto/x509's %s", seed, textOf(got), textOf(want))
					}
				}
			case textOf(got) != textOf(want):
				t.Fatalf("seed %d, %v ahead, live %v:\ngot  %s (%v)\nwant %s (%v)", seed, ahead, live, textOf(got), err, textOf(want), wantErr)
			case err == nil:
				a.accepted++
			default:
				a.refused++
				_, unknown := errors.AsType[x509.UnknownAuthorityError](wantErr)
				invalid, _ := errors.AsType[x509.CertificateInvalidError](wantErr)
				if unknown && len(c.unknown) == 0 && !errors.Is(err, ErrClientUntrusted) || invalid.Reason == x509.Expired && len(c.unknown) == 0 && !errors.Is(err, ErrClientExpired) && !errors.Is(err, ErrClientEarly) {
					t.Fatalf("seed %d: refused by %v, crypto/x509 by %v", seed, err, wantErr)
				}
			}
		}
	}
}

func TestChainsAreThoseOfX509(t *testing.T) {
	t.Parallel()
	var a agreement
	for seed := range uint64(600) {
		a.compare(t, seed)
	}
	t.Logf("%+v", a)
	if a.accepted < 500 || a.refused < 500 || a.limited > a.accepted {
		t.Errorf("compared %+v: the PKIs are not what they should be", a)
	}
}

func FuzzChainsAreThoseOfX509(f *testing.F) {
	f.Add(uint64(1))
	f.Add(uint64(647)) // what a known CA has not signed, one that becomes known later has
	f.Fuzz(func(t *testing.T, seed uint64) { new(agreement).compare(t, seed) })
}
