package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"dragontls/certs/pki"
)

// authority is a CA with the server and client certificate that it issued into a directory: ECDSA P-256 all of them.
type authority struct {
	ca    *pki.CA
	files *tlsFiles
}

func newAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := pki.NewCA("dragonbench CA")
	if err != nil {
		return nil, err
	}
	a := &authority{ca: ca, files: filesIn(dir)}
	if err := replaceFile(a.files.CA, ca.PEM()); err != nil {
		return nil, err
	}
	if err := a.issue(pki.Leaf{CN: "client", Client: true}, a.files.ClientCert, a.files.ClientKey); err != nil {
		return nil, err
	}
	return a, a.rotate()
}

// rotate replaces the server certificate and its key, each by a rename, the key first.
func (a *authority) rotate() error {
	leaf := pki.Leaf{CN: "localhost", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true}
	return a.issue(leaf, a.files.ServerCert, a.files.ServerKey)
}

func (a *authority) issue(leaf pki.Leaf, certFile, keyFile string) error {
	cert, key, err := a.ca.Issue(leaf)
	if err != nil {
		return err
	}
	if err := replaceFile(keyFile, key); err != nil {
		return err
	}
	return replaceFile(certFile, cert)
}

// manyClients writes n client certificates, each followed by its key, into one file and returns its path. The next call with
// the same n returns the same file.
func (a *authority) manyClients(n int) (string, error) {
	path := filepath.Join(filepath.Dir(a.files.CA), fmt.Sprintf("clients-%d.pem", n))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	var all bytes.Buffer
	for i := range n {
		cert, key, err := a.ca.Issue(pki.Leaf{CN: keyName(i), Client: true})
		if err != nil {
			return "", err
		}
		all.Write(cert)
		all.Write(key)
	}
	return path, replaceFile(path, all.Bytes())
}

// replaceFile never lets a reader see half a file.
func replaceFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
