package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// signer is a certificate with its key: an issuer, or who answers for it.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t testing.TB, parent *signer, template *x509.Certificate) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(30*daily)
	}
	s := &signer{key: key}
	above := &signer{template, key}
	if parent != nil {
		above = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above.cert, key.Public(), above.key)
	if err == nil {
		s.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newIssuer(t testing.TB) *signer { return newIssuerBelow(t, nil) }

func newIssuerBelow(t testing.TB, parent *signer) *signer {
	t.Helper()
	return newSigner(t, parent, &x509.Certificate{Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature})
}

// stapling is a fixture whose server certificate names a responder, and whose clock stands still.
type stapling struct {
	*fixture
	issuer *signer
	leaf   *x509.Certificate

	mu   sync.Mutex
	time time.Time

	responder *httptest.Server
	asked     atomic.Int64
	answer    atomic.Pointer[http.HandlerFunc]
}

func newStapling(t *testing.T) *stapling {
	t.Helper()
	f := &stapling{fixture: newFixture(t), issuer: newIssuer(t), time: time.Now()}
	f.responder = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		(*f.answer.Load())(w, r)
	}))
	t.Cleanup(f.responder.Close)
	f.opts.clock = f.now
	f.opts.OCSP = ocspFetch
	f.answers(f.good)
	f.rotate()
	return f
}

func (f *stapling) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.time
}

func (f *stapling) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.time = f.time.Add(d)
}

// newLeaf is a server certificate that names the responder, with its chain.
func (f *stapling) newLeaf() (*x509.Certificate, pemPair) {
	f.t.Helper()
	s := newSigner(f.t, f.issuer, &x509.Certificate{DNSNames: []string{"localhost"}, OCSPServer: []string{"ldap://x", f.responder.URL},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	key, err := x509.MarshalPKCS8PrivateKey(s.key)
	f.must(err)
	return s.cert, pemPair{slices.Concat(pemBlock("CERTIFICATE", s.cert.Raw), pemBlock("CERTIFICATE", f.issuer.cert.Raw)), pemBlock("PRIVATE KEY", key)}
}

func (f *stapling) rotate() {
	f.t.Helper()
	leaf, p := f.newLeaf()
	f.leaf = leaf
	f.writePair("server", p)
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// respond makes a response for a serial, good for an hour unless it is changed.
func (f *stapling) respond(serial *big.Int, by *signer, change func(*ocsp.Response)) []byte {
	r := ocsp.Response{Status: ocsp.Good, SerialNumber: serial, ThisUpdate: f.now().Add(-time.Second), NextUpdate: f.now().Add(time.Hour)}
	if by != f.issuer {
		r.Certificate = by.cert
	}
	if change != nil {
		change(&r)
	}
	der, err := ocsp.CreateResponse(f.issuer.cert, by.cert, r, by.key)
	if err != nil {
		panic(err)
	}
	return der
}

func (f *stapling) answers(h http.HandlerFunc) { f.answer.Store(&h) }

// good answers as a responder should.
func (f *stapling) good(w http.ResponseWriter, r *http.Request) {
	f.answerWith(f.issuer, nil)(w, r)
}

func (f *stapling) answerWith(by *signer, change func(*ocsp.Response)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		request, err := ocsp.ParseRequest(body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" {
			f.t.Errorf("%s %s: %v", r.Method, r.Header, err)
			http.Error(w, "malformed", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(f.respond(request.SerialNumber, by, change))
	}
}

// handshake is what a new client gets, in a TLS version.
func (f *stapling) handshake(addr string, version uint16) tls.ConnectionState {
	f.t.Helper()
	c := f.clientConfig()
	c.RootCAs = x509.NewCertPool()
	c.RootCAs.AddCert(f.issuer.cert)
	c.MinVersion, c.MaxVersion, c.Time = version, version, f.now
	return f.dial(addr, c)
}

// wantStapled wants a response for the leaf that is served, good and in date, or none.
func (f *stapling) wantStapled(addr string, want bool) []byte {
	f.t.Helper()
	var last []byte
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cs := f.handshake(addr, version)
		last = cs.OCSPResponse
		if !want {
			if len(last) > 0 {
				f.t.Fatalf("%s: a response is stapled", tls.VersionName(version))
			}
			continue
		}
		r, err := ocsp.ParseResponseForCert(last, cs.PeerCertificates[0], f.issuer.cert)
		if err != nil {
			f.t.Fatalf("%s: %v", tls.VersionName(version), err)
		}
		if r.Status != ocsp.Good || f.now().Before(r.ThisUpdate) || !f.now().Before(r.NextUpdate) {
			f.t.Fatalf("%s: status %d from %v until %v at %v", tls.VersionName(version), r.Status, r.ThisUpdate, r.NextUpdate, f.now())
		}
	}
	return last
}

// open returns a Store whose fetches may take as long as a busy machine needs.
func (f *stapling) open() *Store {
	f.t.Helper()
	s := f.fixture.open()
	if s.stapler != nil && s.stapler.fetch != nil {
		f.patient(s)
	}
	return s
}

func (f *stapling) patient(s *Store) {
	s.stapler.fetch = (&fetcher{http: newFetcher().http, timeout: time.Minute}).fetch
}

func (f *stapling) pass(s *Store) time.Duration {
	f.t.Helper()
	return s.stapler.pass(f.t.Context())
}

const refusedStaple = "no OCSP response can be stapled"

func TestWatchStaplesAGoodResponse(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.wantStapled(addr, false) // nobody watches yet
	f.watch(s, time.Hour)
	f.eventually("stapled", func() bool { return len(s.Staples()) == 1 })
	f.wantStapled(addr, true)
	before := f.leaf
	f.rotate()
	f.eventually("the next leaf is stapled", func() bool {
		st := s.Staples()
		return len(st) == 1 && st[0].Serial == f.leaf.SerialNumber.Text(16)
	})
	f.wantStapled(addr, true)
	if f.leaf.Equal(before) || f.asked.Load() != 2 {
		t.Errorf("asked %d times, want once for each leaf", f.asked.Load())
	}
}

func TestStapleIsOffByDefault(t *testing.T) {
	for _, off := range []string{"", ocspOff} {
		f := newStapling(t)
		f.opts.OCSP = off
		s := f.open()
		f.watch(s, time.Hour)
		f.wantStapled(f.serve(s.TLSConfig()), false)
		s.OnRevoked(func(Revocation) {})
		if s.stapler != nil || f.asked.Load() != 0 || len(s.Staples()) != 0 {
			t.Errorf("%q: a stapler is there", off)
		}
	}
}

func TestStapleIsRefreshedAtHalfOfWhatItHasLeft(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	if wait := f.pass(s); wait < 29*time.Minute || wait > 30*time.Minute {
		t.Errorf("waits %v, want half an hour", wait)
	}
	first := f.wantStapled(addr, true)
	f.advance(29 * time.Minute)
	f.pass(s)
	if f.asked.Load() != 1 {
		t.Error("asked too early")
	}
	f.advance(2 * time.Minute)
	f.pass(s)
	if second := f.wantStapled(addr, true); bytes.Equal(first, second) || f.asked.Load() != 2 {
		t.Errorf("asked %d times, want a second response", f.asked.Load())
	}
}

func TestStapleStaysUntilItsEndWhileTheResponderIsDown(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.pass(s)
	first := f.wantStapled(addr, true)
	f.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	f.advance(31 * time.Minute)
	if wait := f.pass(s); wait < firstStapleBackoff/2 || wait > firstStapleBackoff {
		t.Errorf("waits %v after a first failure", wait)
	}
	f.advance(firstStapleBackoff)
	if wait := f.pass(s); wait < firstStapleBackoff || wait > 2*firstStapleBackoff {
		t.Errorf("waits %v after a second failure", wait)
	}
	if again := f.wantStapled(addr, true); !bytes.Equal(first, again) || f.asked.Load() != 3 {
		t.Errorf("asked %d times, want the old response", f.asked.Load())
	}
	// No pass in between: a handshake itself sees that the response has ended.
	f.advance(30 * time.Minute)
	f.wantStapled(addr, false)
	for range 20 {
		f.advance(maxStapleWait)
		if wait := f.pass(s); wait > maxStapleBackoff {
			t.Fatalf("waits %v", wait)
		}
	}
	if n := f.log.count(refusedStaple); n > 3 { // the fault, the end, the fault again
		t.Errorf("logged %d times:\n%s", n, f.log.buf.String())
	}
	f.answers(f.good)
	f.advance(maxStapleBackoff)
	f.pass(s)
	f.wantStapled(addr, true)
}

func TestBadResponsesAreNotStapled(t *testing.T) {
	const signing = x509.ExtKeyUsageOCSPSigning
	tests := map[string]struct {
		answer func(*stapling) http.HandlerFunc
		says   string // empty: it is stapled
	}{
		"signed by a delegate": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(newSigner(f.t, f.issuer, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{signing}}), nil)
		}, ""},
		"signed by any certificate of the issuer": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(newSigner(f.t, f.issuer, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageAny}}), nil)
		}, "may not sign responses"},
		"signed by a delegate that has expired": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(newSigner(f.t, f.issuer, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{signing},
				NotBefore: f.now().Add(-2 * time.Hour), NotAfter: f.now().Add(-time.Hour)}), nil)
		}, "may not sign responses"},
		"signed by another's delegate": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(newSigner(f.t, newIssuer(f.t), &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{signing}}), nil)
		}, "check the signature"},
		"signed by another issuer": {func(f *stapling) http.HandlerFunc {
			other := newIssuer(f.t)
			return f.answerWith(other, func(r *ocsp.Response) { r.Certificate = nil })
		}, "check the signature"},
		"for another serial": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(f.issuer, func(r *ocsp.Response) { r.SerialNumber = big.NewInt(7) })
		}, "no response matching"},
		"unknown": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(f.issuer, func(r *ocsp.Response) { r.Status = ocsp.Unknown })
		}, "does not know"},
		"without an end": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(f.issuer, func(r *ocsp.Response) { r.NextUpdate = time.Time{} })
		}, "no next update"},
		"ended": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(f.issuer, func(r *ocsp.Response) { r.NextUpdate = f.now().Add(-time.Second) })
		}, "has ended"},
		"of the future": {func(f *stapling) http.HandlerFunc {
			return f.answerWith(f.issuer, func(r *ocsp.Response) { r.ThisUpdate = f.now().Add(time.Minute) })
		}, "from the future"},
		"try later": {func(*stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(ocsp.TryLaterErrorResponse) }
		}, "try later"},
		"garbage": {func(*stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>sign in</html>") }
		}, "asn1"},
		"nothing": {func(*stapling) http.HandlerFunc { return func(http.ResponseWriter, *http.Request) {} }, "asn1"},
		"huge": {func(f *stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				f.good(w, r)
				_, _ = w.Write(make([]byte, maxOCSPResponse))
			}
		}, "larger than 64 KiB"},
		"endless": {func(f *stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
			}
		}, "larger than 64 KiB"},
		"an error": {func(*stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }
		}, "I'm a teapot"},
		"reset": {func(*stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				c, _, _ := w.(http.Hijacker).Hijack()
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		}, "connection reset"},
		"redirected to another scheme": {func(f *stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusTemporaryRedirect)
			}
		}, "redirected from http to https"},
		"redirected for ever": {func(f *stapling) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusTemporaryRedirect) }
		}, "more than 3 redirects"},
		"hanging": {func(f *stapling) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // else net/http does not notice that the client went
				<-r.Context().Done()
			}
		}, "deadline exceeded"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newStapling(t)
			f.answers(test.answer(f))
			s := f.open()
			if name == "hanging" {
				s.stapler.fetch = (&fetcher{http: newFetcher().http, timeout: 50 * time.Millisecond}).fetch
			}
			f.pass(s)
			f.wantStapled(f.serve(s.TLSConfig()), test.says == "")
			if test.says == "" {
				return
			}
			f.advance(firstStapleBackoff)
			f.pass(s)
			if f.log.count(refusedStaple) != 1 || f.log.count(test.says) != 1 {
				t.Errorf("want %q once in the log:\n%s", test.says, f.log.buf.String())
			}
			f.answers(f.good)
			f.patient(s)
			f.advance(2 * firstStapleBackoff)
			f.pass(s)
			if len(s.Staples()) != 1 {
				t.Error("a good response later was not stapled")
			}
		})
	}
}

// OpenSSL's responder encloses the certificate that signs, be it the issuer itself.
func TestResponseThatEnclosesItsIssuerIsStapled(t *testing.T) {
	f := newStapling(t)
	for _, issuer := range []*signer{newIssuer(t), newIssuerBelow(t, newIssuer(t))} {
		f.issuer = issuer
		f.rotate()
		f.answers(f.answerWith(issuer, func(r *ocsp.Response) { r.Certificate = issuer.cert }))
		s := f.open()
		f.pass(s)
		if len(s.Staples()) != 1 {
			t.Errorf("not stapled:\n%s", f.log.buf.String())
		}
		cs := f.handshake(f.serve(s.TLSConfig()), tls.VersionTLS13)
		if len(cs.OCSPResponse) == 0 {
			t.Error("not served")
		}
	}
}

func TestRevokedCertificateLosesItsStaple(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	var told []Revocation
	s.OnRevoked(func(r Revocation) { told = append(told, r) })
	f.pass(s)
	f.wantStapled(addr, true)
	at := f.now().Truncate(time.Second).UTC()
	f.answers(f.answerWith(f.issuer, func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, at }))
	f.advance(31 * time.Minute)
	f.pass(s)
	f.wantStapled(addr, false)
	f.advance(time.Minute)
	f.pass(s)
	if want := []Revocation{{f.path("server.crt"), f.leaf.SerialNumber.Text(16), at}}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if f.log.count("server certificate is revoked") != 1 || f.log.count(`"level":"error"`) != 1 {
		t.Errorf("log:\n%s", f.log.buf.String())
	}
}

func TestSlowResponderDelaysNoHandshake(t *testing.T) {
	f := newStapling(t)
	asked, release := make(chan struct{}), make(chan struct{})
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		f.good(w, r)
	})
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.watch(s, time.Hour)
	<-asked
	f.wantStapled(addr, false) // it ends, although the responder has not answered yet
	close(release)
	f.eventually("stapled", func() bool { return len(s.Staples()) == 1 })
	f.wantStapled(addr, true)
}

func TestStapleFollowsItsLeaf(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.pass(s)
	first := f.wantStapled(addr, true)
	// Another trust store makes another snapshot of the same leaf: its staple goes with it, without a pass.
	f.write("ca.crt", slices.Concat(f.ca.PEM(), newCA(t, "next").PEM()))
	if changed, err := s.Reload(); !changed || err != nil {
		t.Fatalf("reload: %v, %v", changed, err)
	}
	if again := f.wantStapled(addr, true); !bytes.Equal(first, again) {
		t.Error("another response")
	}
	f.rotate()
	if changed, err := s.Reload(); !changed || err != nil {
		t.Fatalf("reload: %v, %v", changed, err)
	}
	f.wantStapled(addr, false)
	f.pass(s)
	f.wantStapled(addr, true)
	if n := len(s.stapler.known); n != 1 {
		t.Errorf("%d responses are kept, want that of the new leaf", n)
	}
}

func TestResponseThatComesAfterARotationIsNotServedWithTheNewLeaf(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		f.good(w, r)
		f.rotate() // before the response is out
		if changed, err := s.Reload(); !changed || err != nil {
			t.Errorf("reload: %v, %v", changed, err)
		}
	})
	if wait := f.pass(s); wait != 0 {
		t.Errorf("waits %v with a new leaf to ask for", wait)
	}
	f.wantStapled(addr, false)
	f.answers(f.good)
	f.pass(s)
	f.wantStapled(addr, true)
}

func TestStaplingNeedsTheIssuerInTheChain(t *testing.T) {
	f := newStapling(t)
	_, p := f.newLeaf()
	block, _ := pem.Decode(p.cert)
	f.writePair("server", pemPair{pem.EncodeToMemory(block), p.key})
	s := f.open()
	f.pass(s)
	f.advance(time.Hour)
	f.pass(s)
	f.wantStapled(f.serve(s.TLSConfig()), false)
	if f.asked.Load() != 0 || f.log.count(ocspIssuerCure) != 1 {
		t.Errorf("asked %d times; log:\n%s", f.asked.Load(), f.log.buf.String())
	}
}

func TestStaplingNeedsAResponder(t *testing.T) {
	f := newStapling(t)
	sub, err := f.ca.Intermediate("sub") // whose certificates name none
	f.must(err)
	f.writePair("server", pemPair(f.issueServer(sub)))
	s := f.open()
	f.pass(s)
	if f.log.count("names no OCSP responder") != 1 || len(s.Staples()) != 0 {
		t.Errorf("log:\n%s", f.log.buf.String())
	}
}

func TestFetchEndsWithWatch(t *testing.T) {
	f := newStapling(t)
	asked := make(chan struct{}, 1)
	f.answers(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- struct{}{}
		<-r.Context().Done()
	})
	s := f.open()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, time.Hour)
	}()
	<-asked
	cancel()
	<-done
	if f.log.count(refusedStaple) != 0 {
		t.Errorf("the end of the process is logged as a fault:\n%s", f.log.buf.String())
	}
}

func TestStapledCertificateCostsAHandshakeNoAllocation(t *testing.T) {
	f := newStapling(t)
	s := f.open()
	hello := &tls.ClientHelloInfo{ServerName: "localhost"}
	for _, want := range []bool{false, true} {
		snapshot := s.Snapshot()
		if n := testing.AllocsPerRun(100, func() { _, _ = snapshot.certificate(hello) }); n != 0 {
			t.Errorf("stapled %v: %v allocations", want, n)
		}
		c, _ := snapshot.certificate(hello)
		if got := len(c.OCSPStaple) > 0; got != want || len(snapshot.pairs[0].tls.OCSPStaple) > 0 {
			t.Errorf("stapled %v, want %v, and never in the certificate that is shared", got, want)
		}
		f.pass(s)
	}
}

func TestStapleNeverOutlivesItsCertificate(t *testing.T) {
	f := newStapling(t)
	leaf := *f.leaf
	leaf.NotAfter = f.now().Add(time.Minute)
	st, err := parseStaple(f.respond(leaf.SerialNumber, f.issuer, nil), &leaf, f.issuer.cert, f.now())
	f.must(err)
	if !st.until.Equal(leaf.NotAfter) {
		t.Errorf("until %v, want %v", st.until, leaf.NotAfter)
	}
	if !strings.Contains(outOfDate(st, leaf.NotAfter).Error(), "has ended") || st.inDate(leaf.NotAfter) {
		t.Error("still in date at its end")
	}
}
