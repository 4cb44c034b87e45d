package certs

import (
	"encoding/base64"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"dragontls/certs/pki"

	"golang.org/x/crypto/ocsp"
)

func (f *fixture) issueServer(ca *pki.CA) pemPair {
	f.t.Helper()
	return f.issue(ca, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true})
}

// newFiled staples from a file.
func newFiled(t *testing.T) *stapling {
	t.Helper()
	f := newStapling(t)
	f.opts.OCSP = f.path("server.ocsp")
	f.write("server.ocsp", f.respond(f.leaf.SerialNumber, f.issuer, nil))
	return f
}

func TestResponseOfAFileIsStapledFromTheFirstHandshake(t *testing.T) {
	f := newFiled(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.wantStapled(addr, true)
	if wait := f.pass(s); wait < 59*time.Minute || wait > time.Hour {
		t.Errorf("waits %v, want until it ends", wait)
	}
	f.advance(61 * time.Minute)
	f.wantStapled(addr, false)
	f.pass(s)
	f.pass(s)
	if f.log.count("the response has ended") != 1 {
		t.Errorf("log:\n%s", f.log.buf.String())
	}
	// Written anew, it is taken up as a certificate is.
	f.write("server.ocsp", f.respond(f.leaf.SerialNumber, f.issuer, nil))
	if changed, err := s.Reload(); !changed || err != nil {
		t.Fatalf("reload: %v, %v", changed, err)
	}
	f.wantStapled(addr, true)
	f.pass(s)
	f.advance(61 * time.Minute)
	f.pass(s)
	if f.log.count("the response has ended") != 2 || f.asked.Load() != 0 {
		t.Errorf("asked %d times; log:\n%s", f.asked.Load(), f.log.buf.String())
	}
}

func TestFileThatHoldsNoResponseIsAFault(t *testing.T) {
	f := newFiled(t)
	good := f.respond(f.leaf.SerialNumber, f.issuer, nil)
	bad := map[string][]byte{
		"empty": nil, "PEM": pemBlock("OCSP RESPONSE", good), "base64": []byte(base64.StdEncoding.EncodeToString(good)),
		"truncated": good[:len(good)-1], "two": slices.Concat(good, good), "a refusal": ocsp.UnauthorizedErrorResponse,
		"a certificate": f.leaf.Raw,
	}
	for name, data := range bad {
		t.Run(name, func(t *testing.T) {
			f.write("server.ocsp", data)
			_, err := Open(f.opts)
			if got, want := reasons(err), []string{"server.ocsp ocsp"}; !reflect.DeepEqual(got, want) {
				t.Errorf("got %v (%v), want %v", got, err, want)
			}
			var fault *Fault
			if !errors.As(err, &fault) || fault.Cure == "" {
				t.Errorf("no cure: %v", err)
			}
		})
	}
	f.write("server.ocsp", good)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.write("server.ocsp", bad["truncated"])
	if _, err := s.Reload(); reasonOf(err) != ReasonOCSP {
		t.Errorf("reload: %v", err)
	}
	f.wantStapled(addr, true) // the last good one
}

// What is a response but cannot be stapled keeps nobody from starting or rotating.
func TestResponseOfAFileThatDoesNotFitIsLeftOut(t *testing.T) {
	tests := map[string]struct {
		response func(*stapling) []byte
		says     string
	}{
		"ended": {func(f *stapling) []byte {
			return f.respond(f.leaf.SerialNumber, f.issuer, func(r *ocsp.Response) { r.NextUpdate = f.now().Add(-time.Second) })
		}, "the response has ended"},
		"for another certificate": {func(f *stapling) []byte {
			other, _ := f.newLeaf()
			return f.respond(other.SerialNumber, f.issuer, nil)
		}, "no response matching"},
		"of another issuer": {func(f *stapling) []byte {
			return f.respond(f.leaf.SerialNumber, newIssuer(f.t), nil)
		}, "check the signature"},
		"revoked": {func(f *stapling) []byte {
			return f.respond(f.leaf.SerialNumber, f.issuer, func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, f.now() })
		}, "server certificate is revoked"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFiled(t)
			f.write("server.ocsp", test.response(f))
			s := f.open()
			revoked := 0
			s.OnRevoked(func(Revocation) { revoked++ })
			f.pass(s)
			f.pass(s)
			f.wantStapled(f.serve(s.TLSConfig()), false)
			if f.log.count(test.says) != 1 {
				t.Errorf("want %q once in the log:\n%s", test.says, f.log.buf.String())
			}
			if want := map[bool]int{true: 1}[name == "revoked"]; revoked != want {
				t.Errorf("told %d times of a revocation, want %d", revoked, want)
			}
		})
	}
}

func TestRotationDoesNotWaitForTheResponseOfAFile(t *testing.T) {
	f := newFiled(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.wantStapled(addr, true)
	f.rotate()
	if changed, err := s.Reload(); !changed || err != nil {
		t.Fatalf("reload: %v, %v", changed, err)
	}
	f.wantStapled(addr, false)
	f.pass(s)
	if f.log.count(refusedStaple) != 1 {
		t.Errorf("log:\n%s", f.log.buf.String())
	}
	f.write("server.ocsp", f.respond(f.leaf.SerialNumber, f.issuer, nil))
	if changed, err := s.Reload(); !changed || err != nil {
		t.Fatalf("reload: %v, %v", changed, err)
	}
	f.wantStapled(addr, true)
}

func TestResponseOfAFileGoesToThePairItIsFor(t *testing.T) {
	f := newFiled(t)
	second, p := f.newLeaf()
	f.writePair("second", p)
	f.opts.CertFiles = append(f.opts.CertFiles, f.path("second.crt"))
	f.opts.KeyFiles = append(f.opts.KeyFiles, f.path("second.key"))
	f.write("server.ocsp", f.respond(second.SerialNumber, f.issuer, nil))
	s := f.open()
	f.pass(s)
	st := s.Staples()
	if len(st) != 1 || st[0].File != f.path("second.crt") || st[0].Serial != second.SerialNumber.Text(16) {
		t.Errorf("got %+v", st)
	}
	if f.log.count(refusedStaple) != 0 {
		t.Errorf("log:\n%s", f.log.buf.String())
	}
	f.wantStapled(f.serve(s.TLSConfig()), false) // the first pair is the default
}
