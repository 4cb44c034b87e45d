package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ErrExists is what Init returns when the directory already holds a PKI.
var ErrExists = errors.New("a PKI is already there")

// Options says where and what Init and Rotate write.
type Options struct {
	Dir string
	// Hosts are the names and addresses of the server certificate. Empty: for
	// Init localhost, 127.0.0.1, ::1 and dragontls; for Rotate those of the
	// certificate it replaces.
	Hosts []string
	// Validity of the leafs, at most 398 days. Zero: 90 days.
	Validity time.Duration
	// KeyMode is the mode of server.key. Zero: for Init 0600; for Rotate that
	// of the key it replaces, with nothing for others.
	KeyMode os.FileMode
}

var defaultHosts = []string{"localhost", "127.0.0.1", "::1", "dragontls"}

var (
	clientName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	dnsName    = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
)

// Init makes a CA with an empty CRL, a server and a client certificate in o.Dir.
// It overwrites nothing: one of the files being there is ErrExists.
func Init(o Options) error {
	leaf, err := o.serverLeaf(defaultHosts)
	if err != nil {
		return err
	}
	if err := Vacant(o.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	ca, err := NewCA("dragontls development CA")
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(ca.key)
	if err != nil {
		return err
	}
	if err := writePair(o.Dir, "ca", ca.PEM(), keyPEM, 0o600); err != nil {
		return err
	}
	if err := ca.writeCRL(o.Dir, nil, nil); err != nil {
		return err
	}
	if err := ca.writeLeaf(o.Dir, "server", leaf, o.keyMode(0o600)); err != nil {
		return err
	}
	client := Leaf{CN: "client", Client: true, NotAfter: leaf.NotAfter}
	return ca.writeLeaf(o.Dir, "client", client, 0o600)
}

// Vacant returns ErrExists if dir holds one of the files that Init makes, and nil if Init can make them there.
func Vacant(dir string) error {
	paths := []string{crlPath(dir)}
	for _, name := range []string{"ca", "server", "client"} {
		pair := pairPaths(dir, name)
		paths = append(paths, pair[:]...)
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s: %w\nkeep it and renew the server certificate with \"pki rotate\" "+
				"or add a client with \"pki client NAME\"; to start over, remove the directory or choose another", path, ErrExists)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Client makes NAME.crt and NAME.key in dir, replacing those that are there.
func Client(dir, name string) error {
	if !clientName.MatchString(name) {
		return fmt.Errorf("client name %q: use 1 to 64 of A-Z a-z 0-9 _ . -", name)
	}
	if l := strings.ToLower(name); l == "ca" || l == "server" {
		return fmt.Errorf("client name %q: the PKI itself uses that name, choose another", name)
	}
	ca, err := load(dir)
	if err != nil {
		return err
	}
	return ca.writeLeaf(dir, name, Leaf{CN: name, Client: true}, 0o600)
}

// Rotate replaces the server's certificate and key by new ones of the same CA.
func Rotate(o Options) error {
	ca, err := load(o.Dir)
	if err != nil {
		return err
	}
	paths := pairPaths(o.Dir, "server")
	hosts := defaultHosts
	if len(o.Hosts) == 0 {
		if old, err := readCert(paths[0]); err == nil {
			hosts = hostsOf(old)
		}
	}
	leaf, err := o.serverLeaf(hosts)
	if err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if info, err := os.Stat(paths[1]); err == nil {
		mode |= info.Mode().Perm() & 0o040
	}
	return ca.writeLeaf(o.Dir, "server", leaf, o.keyMode(mode))
}

func (o Options) keyMode(otherwise os.FileMode) os.FileMode {
	if o.KeyMode != 0 {
		return o.KeyMode
	}
	return otherwise
}

func (o Options) serverLeaf(hosts []string) (Leaf, error) {
	if len(o.Hosts) > 0 {
		hosts = o.Hosts
	}
	validity := o.Validity
	if validity == 0 {
		validity = defaultValidity
	}
	if validity < 0 || validity > maxValidity {
		return Leaf{}, fmt.Errorf("validity %v: must be above zero and at most 398 days (%v)", validity, maxValidity)
	}
	now := time.Now()
	l := Leaf{Server: true, NotBefore: now.Add(-backdate), NotAfter: now.Add(validity)}
	if longest := l.NotBefore.Add(maxValidity); l.NotAfter.After(longest) {
		l.NotAfter = longest
	}
	for _, host := range hosts {
		host = strings.ToLower(host)
		if ip := net.ParseIP(strings.Trim(host, "[]")); ip != nil {
			l.IPs = append(l.IPs, ip)
		} else if len(host) <= 253 && dnsName.MatchString(host) {
			l.DNS = append(l.DNS, host)
		} else {
			return Leaf{}, fmt.Errorf("host %q: neither a DNS name nor an IP address", host)
		}
	}
	// X.520 gives a common name 64 characters; verifiers read the SANs anyway.
	if len(hosts) > 0 && len(hosts[0]) <= 64 {
		l.CN = hosts[0]
	}
	return l, nil
}

func hostsOf(cert *x509.Certificate) []string {
	hosts := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

func (c *CA) writeLeaf(dir, name string, l Leaf, keyMode os.FileMode) error {
	certPEM, keyPEM, err := c.Issue(l)
	if err != nil {
		return err
	}
	return writePair(dir, name, certPEM, keyPEM, keyMode)
}

// load reads the CA that dir holds.
func load(dir string) (*CA, error) {
	paths := pairPaths(dir, "ca")
	pair, err := tls.LoadX509KeyPair(paths[0], paths[1])
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read CA: %w\nmake one with \"pki init\"", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read CA %q: %w", paths[0], err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("read CA %q: not a CA certificate", paths[0])
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("read CA %q: expired on %s\nmake a new one in another directory with \"pki init\"",
			paths[0], pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	return &CA{cert: pair.Leaf, key: key}, nil
}

func pairPaths(dir, name string) [2]string {
	return [2]string{filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")}
}
