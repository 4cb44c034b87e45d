package certs

import (
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// respondFor is a response of f's issuer that names another one.
func (f *stapling) respondFor(named *x509.Certificate, hash crypto.Hash, status int) []byte {
	f.t.Helper()
	der, err := ocsp.CreateResponse(named, f.issuer.cert, ocsp.Response{Status: status, SerialNumber: f.leaf.SerialNumber, IssuerHash: hash,
		ThisUpdate: f.now().Add(-time.Second), NextUpdate: f.now().Add(time.Hour), RevokedAt: f.now()}, f.issuer.key)
	f.must(err)
	return der
}

func TestResponseForTheSameSerialOfAnotherIssuerSaysNothing(t *testing.T) {
	f := newStapling(t)
	ca := func(name string, key *signer) *x509.Certificate {
		return mint(t, name, nil, key.key, nil).cert
	}
	otherName, otherKey := ca("other", f.issuer), ca("issuer", newIssuer(t))
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384} {
		for name, named := range map[string]*x509.Certificate{"another name": otherName, "another key": otherKey} {
			for _, status := range []int{ocsp.Good, ocsp.Revoked, ocsp.Unknown} {
				if _, err := parseStaple(f.respondFor(named, hash, status), f.leaf, f.issuer.cert, f.now()); !errors.Is(err, errOCSPOther) {
					t.Errorf("%s, %v, status %d: got %v, want %v", name, hash, status, err, errOCSPOther)
				}
			}
		}
		if _, err := parseStaple(f.respondFor(f.issuer.cert, hash, ocsp.Good), f.leaf, f.issuer.cert, f.now()); err != nil {
			t.Errorf("%v, the issuer itself: %v", hash, err)
		}
	}

	s := f.open()
	s.OnRevoked(func(r Revocation) { t.Errorf("told of %v", r) })
	f.answers(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(f.respondFor(otherName, crypto.SHA1, ocsp.Revoked))
	})
	f.pass(s)
	if f.log.count("of another issuer") != 1 {
		t.Errorf("log:\n%s", f.log.buf.String())
	}
	f.wantStapled(f.serve(s.TLSConfig()), false)
}

func TestResponseOfAFileIsForOnePairOfTwoWithOneSerial(t *testing.T) {
	f := newFiled(t)
	other := newIssuer(t)
	serial := f.leaf.SerialNumber
	twin := mint(t, "localhost", &issued{other.cert, other.key}, nil, leaf(func(c *x509.Certificate) { c.SerialNumber = serial }))
	f.serves("twin", twin, &issued{other.cert, other.key})
	f.secondPair("twin")
	s := f.open()
	f.pass(s)
	if st := s.Staples(); len(st) != 1 || st[0].File != f.path("server.crt") || f.log.count(refusedStaple) != 0 {
		t.Errorf("stapled %+v; log:\n%s", st, f.log.buf.String())
	}
}

func TestRevokedIsBelievedInDateAndAfter(t *testing.T) {
	f := newStapling(t)
	for name, test := range map[string]struct {
		change  func(*ocsp.Response)
		refused error // nil: it is believed
	}{
		"in date":        {func(*ocsp.Response) {}, nil},
		"without an end": {func(r *ocsp.Response) { r.NextUpdate = time.Time{} }, nil},
		"ended":          {func(r *ocsp.Response) { r.NextUpdate = f.now().Add(-time.Hour) }, nil},
		"a clock ahead":  {func(r *ocsp.Response) { r.ThisUpdate = f.now().Add(maxOCSPSkew - time.Second) }, nil},
		"of the future":  {func(r *ocsp.Response) { r.ThisUpdate = f.now().Add(maxOCSPSkew + 2*time.Second) }, errOCSPEarly},
		"on hold":        {func(r *ocsp.Response) { r.RevocationReason = ocsp.CertificateHold }, nil},
		"on hold, ended": {func(r *ocsp.Response) {
			r.RevocationReason, r.NextUpdate = ocsp.CertificateHold, f.now().Add(-time.Hour)
		}, errOCSPEnded},
		"on hold, no end": {func(r *ocsp.Response) { r.RevocationReason, r.NextUpdate = ocsp.CertificateHold, time.Time{} }, nil},
	} {
		der := f.respond(f.leaf.SerialNumber, f.issuer, func(r *ocsp.Response) {
			r.Status, r.RevokedAt = ocsp.Revoked, f.now().Add(-daily)
			test.change(r)
		})
		_, err := parseStaple(der, f.leaf, f.issuer.cert, f.now())
		_, revoked := errors.AsType[*revokedError](err)
		if revoked != (test.refused == nil) || !revoked && !errors.Is(err, test.refused) {
			t.Errorf("%s: got %v, want %v", name, err, test.refused)
		}
	}
}

// A response of the future is no reason to drop one that is good now.
func TestRevocationOfTheFutureKeepsTheStaple(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	var told []Revocation
	s.OnRevoked(func(r Revocation) { told = append(told, r) })
	f.pass(s)
	f.answers(f.answerWith(f.issuer, func(r *ocsp.Response) {
		r.Status, r.RevokedAt, r.ThisUpdate, r.NextUpdate = ocsp.Revoked, f.now(), f.now().Add(time.Hour), f.now().Add(2*time.Hour)
	}))
	f.advance(31 * time.Minute)
	f.pass(s)
	f.wantStapled(f.serve(s.TLSConfig()), true)
	if len(told) > 0 || f.log.count("from the future") != 1 {
		t.Errorf("told %v; log:\n%s", told, f.log.buf.String())
	}
}
