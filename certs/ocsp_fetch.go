package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

const (
	ocspTimeout = 10 * time.Second // for one responder
	// maxOCSPResponse: a response with a certificate or two in it has 2 to 4 KiB.
	maxOCSPResponse  = 64 << 10
	maxOCSPRedirects = 3
)

var (
	errOCSPNoResponder = errors.New("the certificate names no OCSP responder (http:// or https:// in its authority information access)")
	errOCSPTooLarge    = errors.New("the response is larger than 64 KiB")
)

// fetcher asks the responders that certificates name. The signature of what they
// answer is checked, hence plain HTTP is as good as any.
type fetcher struct {
	http    *http.Client
	timeout time.Duration
}

func newFetcher() *fetcher {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // days may pass between two requests
	return &fetcher{timeout: ocspTimeout, http: &http.Client{Transport: transport, CheckRedirect: sameScheme}}
}

func sameScheme(r *http.Request, via []*http.Request) error {
	if r.URL.Scheme != via[0].URL.Scheme {
		return fmt.Errorf("redirected from %s to %s", via[0].URL.Scheme, r.URL.Scheme)
	}
	if len(via) > maxOCSPRedirects {
		return fmt.Errorf("more than %d redirects", maxOCSPRedirects)
	}
	return nil
}

// fetch asks one responder after the other until one has a response that can be
// stapled now, or says that the certificate is revoked.
func (f *fetcher) fetch(ctx context.Context, p *pair, now time.Time) (*staple, error) {
	if p.issuer == nil {
		return nil, errOCSPIssuer
	}
	request, err := ocsp.CreateRequest(p.tls.Leaf, p.issuer, nil) // SHA-1 names the issuer, as RFC 5019 wants
	if err != nil {
		return nil, err
	}
	err = errOCSPNoResponder
	for _, url := range p.tls.Leaf.OCSPServer {
		if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
			continue
		}
		var der []byte
		if der, err = f.post(ctx, url, request); err != nil {
			continue
		}
		var next *staple
		next, err = parseStaple(der, p.tls.Leaf, p.issuer, now)
		if err == nil && !next.inDate(now) {
			err = outOfDate(next, now)
		}
		if err == nil {
			return next, nil
		}
		if _, revoked := errors.AsType[*revokedError](err); revoked {
			return nil, err
		}
		err = fmt.Errorf("check the response of %s: %w", url, err)
	}
	return nil, err
}

// post is RFC 6960, A.1.
func (f *fetcher) post(ctx context.Context, url string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	r.Header.Set("Accept", "application/ocsp-response")
	response, err := f.http.Do(r)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			// Without the ports, which differ each time: one fault is logged once.
			err = fmt.Errorf("ask %s: %s: %w", url, op.Op, op.Err)
		}
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: it answered %d %s", url, response.StatusCode, http.StatusText(response.StatusCode))
	}
	der, err := io.ReadAll(io.LimitReader(response.Body, maxOCSPResponse+1))
	if err != nil {
		return nil, fmt.Errorf("read the response of %s: %w", url, err)
	}
	if len(der) > maxOCSPResponse {
		return nil, fmt.Errorf("ask %s: %w", url, errOCSPTooLarge)
	}
	return der, nil
}
