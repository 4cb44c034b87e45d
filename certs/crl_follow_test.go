package certs

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"dragontls/certs/pki"
)

func TestCRLFileThatSaysLessThanBefore(t *testing.T) {
	past := time.Now().Add(-time.Hour)
	for name, text := range map[string]func(f *fixture) []byte{
		"no list of the CA any more": func(f *fixture) []byte { return f.revoking(newCA(t, "another")) },
		"another key of its name":    func(f *fixture) []byte { return f.revoking(newCA(t, "root")) },
		"an older list":              func(f *fixture) []byte { return f.crl(f.ca, pki.CRLOptions{ThisUpdate: past}) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.withCRL(f.revoking(f.ca, f.client))
			s := f.open()
			f.write("ca.crl", text(f))
			if _, err := s.Reload(); err == nil || s.Stats().ReloadsFailed[ReasonCRL] != 1 {
				t.Errorf("taken into use: %v", s.Stats().ReloadsFailed)
			}
			f.wantRefused(s, f.client, ErrClientRevoked)
			f.wantAdmitted(s, f.clientOf(f.ca))
		})
	}
	t.Run("then nothing is held back behind it", func(t *testing.T) {
		f := newFixture(t)
		f.withCRL(f.crl(f.ca, pki.CRLOptions{ThisUpdate: past}))
		s := f.open()
		f.write("ca.crl", f.crl(f.ca, pki.CRLOptions{ThisUpdate: time.Now().Add(24 * time.Hour)}))
		if _, err := s.Reload(); err == nil {
			t.Error("a list of tomorrow was taken")
		}
		f.wantAdmitted(s, f.client)
		f.write("ca.crl", f.revoking(f.ca, f.client))
		f.reload(s)
		f.wantRefused(s, f.client, ErrClientRevoked)
	})
	t.Run("of an intermediate that clients send", func(t *testing.T) {
		f := newFixture(t)
		sub, err := f.ca.Intermediate("sub")
		f.must(err)
		good, bad := f.clientOf(sub), f.clientOf(sub)
		of := func(at time.Time, clients ...tls.Certificate) []byte {
			o := pki.CRLOptions{ThisUpdate: at}
			for _, c := range clients {
				o.Revoked = append(o.Revoked, c.Leaf.SerialNumber)
			}
			return f.crl(sub, o)
		}
		unused := f.revoking(newCA(t, "partner"))
		f.withCRL(slices.Concat(of(past), unused))
		s := f.open()
		f.wantAdmitted(s, good)
		f.write("ca.crl", of(past.Add(time.Minute), bad))
		f.reload(s) // without the one that nobody used
		for name, text := range map[string][]byte{"older": of(past), "gone": unused} {
			f.write("ca.crl", text)
			if _, err := s.Reload(); err == nil {
				t.Errorf("%s: taken into use", name)
			}
			f.wantRefused(s, bad, ErrClientRevoked)
			f.wantAdmitted(s, good)
		}
	})
	t.Run("of one partition", func(t *testing.T) {
		f := newFixture(t)
		shard := func(uri string, at time.Time, clients ...tls.Certificate) []byte {
			o := pki.CRLOptions{ThisUpdate: at, Extensions: []pkix.Extension{{Id: oidPoint, Critical: true, Value: point(t, uri)}}}
			for _, c := range clients {
				o.Revoked = append(o.Revoked, c.Leaf.SerialNumber)
			}
			return f.crl(f.ca, o)
		}
		bad := f.named(pki.Leaf{CN: "x", CRL: []string{"http://crl.test/1"}})
		two := shard("http://crl.test/2", time.Now())
		f.withCRL(slices.Concat(shard("http://crl.test/1", past.Add(time.Minute), bad), two))
		s := f.open()
		f.write("ca.crl", slices.Concat(shard("http://crl.test/1", past), two))
		if _, err := s.Reload(); err == nil {
			t.Error("taken into use")
		}
		f.wantRefused(s, bad, ErrClientRevoked)
	})
	t.Run("of a CA that is trusted no more", func(t *testing.T) {
		f := newFixture(t)
		next := newCA(t, "next")
		f.withCRL(slices.Concat(f.revoking(f.ca), f.revoking(next)))
		s := f.open()
		f.write("ca.crt", next.PEM())
		f.write("ca.crl", f.revoking(next))
		f.reload(s)
		f.wantAdmitted(s, f.clientOf(next))
	})
}

// point is an issuing distribution point with a full name.
func point(t *testing.T, uri string) []byte {
	t.Helper()
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}
	inner, err := asn1.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []int{0, 0} {
		if inner, err = asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: inner}); err != nil {
			t.Fatal(err)
		}
	}
	der, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestPartitionsCoverTheirOwnCertificates(t *testing.T) {
	f := newFixture(t)
	at := func(uri string) tls.Certificate { return f.named(pki.Leaf{CN: uri, CRL: []string{uri}}) }
	first, second := at("http://crl.test/1"), at("http://crl.test/2")
	shard := func(uri string, o pki.CRLOptions) []byte {
		o.Extensions = []pkix.Extension{{Id: oidPoint, Critical: true, Value: point(t, uri)}}
		return f.crl(f.ca, o)
	}
	now := time.Now()
	f.withCRL(slices.Concat(shard("http://crl.test/1", pki.CRLOptions{}),
		shard("http://crl.test/2", pki.CRLOptions{ThisUpdate: now.Add(-48 * time.Hour), NextUpdate: now.Add(-time.Hour)})))
	s := f.open()
	f.wantAdmitted(s, first)
	f.wantRefused(s, second, ErrCRLExpired)
	if found := Lint(s.Snapshot(), LintOptions{Now: now}); !slices.ContainsFunc(found, func(f Finding) bool { return f.ID == "crl_expired" }) {
		t.Errorf("lint is silent about the partition that expired: %v", found)
	}
	f.wantRefused(s, at("http://crl.test/3"), ErrNoCRL)
	f.wantRefused(s, f.client, ErrNoCRL) // it names no distribution point
	f.withCRL(shard("http://crl.test/1", pki.CRLOptions{Revoked: []*big.Int{second.Leaf.SerialNumber}}))
	f.wantRefused(f.open(), second, ErrClientRevoked)
}
