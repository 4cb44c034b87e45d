package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tlsFiles are the certificates of a run.
type tlsFiles struct {
	CA, ServerCert, ServerKey, ClientCert, ClientKey string
}

func filesIn(dir string) *tlsFiles {
	path := func(name string) string { return filepath.Join(dir, name) }
	return &tlsFiles{
		CA: path("ca.crt"), ServerCert: path("server.crt"), ServerKey: path("server.key"),
		ClientCert: path("client.crt"), ClientKey: path("client.key"),
	}
}

// client is how every connection of the generator speaks TLS: 1.3 and X25519, whatever else a peer would offer (a
// newer library on one side alone would add the cost of a post-quantum key exchange to some peers only).
func (f *tlsFiles) client() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.ClientCert, f.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read CA %q: no certificate", f.CA)
	}
	return &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "localhost",
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
	}, nil
}

// describe returns what was agreed on; it must be the same for all peers.
func describe(s tls.ConnectionState) string {
	return fmt.Sprintf("%s %s %s", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.CurveID)
}

// splitPairs reads certificates, each followed by its key.
func splitPairs(bundle []byte) (pairs []tls.Certificate, err error) {
	var cert []byte
	for {
		block, rest := pem.Decode(bundle)
		if block == nil {
			break
		}
		one := bundle[:len(bundle)-len(rest)]
		bundle = rest
		if block.Type == "CERTIFICATE" {
			cert = one
			continue
		}
		pair, err := tls.X509KeyPair(cert, one)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, pair)
	}
	if len(bytes.TrimSpace(bundle)) > 0 {
		return nil, errors.New("not PEM")
	}
	return pairs, nil
}
