package certs

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"dragontls/certs/pki"
)

// run runs a command of a shell in the directory of the fixture.
func (f *fixture) run(command string) {
	f.t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		f.t.Skip("openssl is not installed")
	}
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = f.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func (f *fixture) read(name string) []byte {
	f.t.Helper()
	data, err := os.ReadFile(f.path(name))
	f.must(err)
	return data
}

func toUTF16(text []byte, order string) []byte {
	out := []byte(map[string]string{"LE": "\xff\xfe", "BE": "\xfe\xff"}[order])
	for _, u := range utf16.Encode([]rune(string(text))) {
		if order == "LE" {
			out = append(out, byte(u), byte(u>>8))
		} else {
			out = append(out, byte(u>>8), byte(u))
		}
	}
	return out
}

func indent(text []byte) []byte {
	return append([]byte("    "), bytes.ReplaceAll(text, []byte("\n"), []byte("\n    "))...)
}

// Each form that people bring is recognised by its name. Where the cure is a command, it makes a file that is taken.
func TestFormsThatPeopleBring(t *testing.T) {
	for name, c := range map[string]struct {
		file  string // that is spoilt
		make  func(f *fixture, good []byte) []byte
		says  string
		cure  string // a part of it
		cured bool   // its command is run, and what it writes is taken
	}{
		"certificate in DER":        {"server.crt", func(_ *fixture, good []byte) []byte { return der(good) }, "a certificate in DER", "openssl x509 -inform der", true},
		"key in DER":                {"server.key", func(_ *fixture, good []byte) []byte { return der(good) }, "a private key in DER", "openssl pkey -inform der", true},
		"bundle in DER":             {"ca.crt", func(_ *fixture, good []byte) []byte { return der(good) }, "a certificate in DER", "openssl x509 -inform der", true},
		"certificate in UTF-16":     {"server.crt", func(_ *fixture, good []byte) []byte { return toUTF16(good, "LE") }, "UTF-16", "iconv", true},
		"key in UTF-16, big endian": {"server.key", func(_ *fixture, good []byte) []byte { return toUTF16(good, "BE") }, "UTF-16", "iconv", true},
		"CRL in UTF-16":             {"ca.crl", func(_ *fixture, good []byte) []byte { return toUTF16(good, "LE") }, "UTF-16", "iconv", true},
		"bundle indented":           {"ca.crt", func(_ *fixture, good []byte) []byte { return indent(good) }, "indented, as in YAML", "sed", true},
		"key indented":              {"server.key", func(_ *fixture, good []byte) []byte { return indent(good) }, "indented, as in YAML", "sed", true},
		"CRL indented":              {"ca.crl", func(_ *fixture, good []byte) []byte { return indent(good) }, "indented, as in YAML", "sed", true},
		"second CA indented":        {"ca.crt", func(f *fixture, good []byte) []byte { return slices.Concat(good, indent(newCA(f.t, "2").PEM())) }, "indented, as in YAML", "sed", true},
		"two blocks on one line": {"ca.crt", func(f *fixture, good []byte) []byte {
			return slices.Concat(bytes.TrimSpace(good), newCA(f.t, "2").PEM())
		}, "two blocks on one line", "sed", true},
		"chain on one line":           {"server.crt", func(f *fixture, good []byte) []byte { return slices.Concat(bytes.TrimSpace(good), f.ca.PEM()) }, "two blocks on one line", "sed", true},
		"CRLs on one line":            {"ca.crl", func(f *fixture, good []byte) []byte { return slices.Concat(bytes.TrimSpace(good), good) }, "two blocks on one line", "sed", true},
		"line ends as text":           {"server.crt", func(_ *fixture, good []byte) []byte { return bytes.ReplaceAll(good, []byte("\n"), []byte(`\n`)) }, `written as \n`, "sed", true},
		"base64 of a secret":          {"server.key", func(_ *fixture, good []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(good)) }, "Kubernetes secret", "base64 -d", true},
		"base64 alone":                {"server.crt", func(_ *fixture, good []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(der(good))) }, "without its BEGIN and END lines", "PEM", false},
		"empty":                       {"server.crt", func(*fixture, []byte) []byte { return []byte("\n") }, "it is empty", "write the file", false},
		"a CRL for a bundle":          {"ca.crt", func(f *fixture, _ []byte) []byte { return f.revoking(f.ca) }, "it is a CRL", "TLS_CRL_FILE", false},
		"a key for a bundle":          {"ca.crt", func(f *fixture, _ []byte) []byte { return f.pair().key }, "it is a private key", "the certificate", false},
		"a certificate for a key":     {"server.key", func(f *fixture, _ []byte) []byte { return f.pair().cert }, "it is a certificate", "the private key", false},
		"a certificate for a CRL":     {"ca.crl", func(f *fixture, _ []byte) []byte { return f.ca.PEM() }, "it is a certificate", "the CRL", false},
		"a DER certificate for a CRL": {"ca.crl", func(f *fixture, _ []byte) []byte { return der(f.ca.PEM()) }, "it is a certificate", "the CRL", false},
		"a key of OpenSSH": {"server.key", func(*fixture, []byte) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("x")})
		}, "OpenSSH", "ssh-keygen -p", false},
		"an encrypted key":            {"server.key", func(f *fixture, _ []byte) []byte { return f.encrypted("") }, "it is encrypted", "DRAGONTLS_TLS_KEY_PASSWORD_FILE", false},
		"a key encrypted the old way": {"server.key", func(f *fixture, _ []byte) []byte { return f.encryptedOld() }, "encrypted in the old way", "openssl pkcs8 -topk8", false},
		"a certificate request": {"server.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl req -new -key server.key -subj /CN=x -out made")
		}, "certificate request (CSR)", "send it to the CA", false},
		"a request in DER": {"server.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl req -new -key server.key -subj /CN=x -outform der -out made")
		}, "certificate request (CSR)", "send it to the CA", false},
		"a public key":              {"server.key", func(f *fixture, _ []byte) []byte { return f.made("openssl pkey -in server.key -pubout -out made") }, "a public key alone", "private key", false},
		"a public key for the leaf": {"server.crt", func(f *fixture, _ []byte) []byte { return f.made("openssl pkey -in server.key -pubout -out made") }, "a public key alone", "certificate", false},
		"a trusted certificate":     {"ca.crt", func(f *fixture, _ []byte) []byte { return f.made("openssl x509 -in ca.crt -trustout -out made") }, "TRUSTED CERTIFICATE", "openssl x509", true},
		"one among CAs": {"ca.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl x509 -in ca.crt -trustout > made; cat ca.crt >> made")
		}, "TRUSTED CERTIFICATE", "openssl x509", false},
		"PKCS #12": {"server.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl pkcs12 -export -in server.crt -inkey server.key -passout pass:x -out made")
		}, "PKCS #12", "-nokeys", false},
		"PKCS #12 for a key": {"server.key", func(f *fixture, _ []byte) []byte {
			return f.made("openssl pkcs12 -export -in server.crt -inkey server.key -passout pass:x -out made")
		}, "PKCS #12", "-nocerts", false},
		"PKCS #7": {"server.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl crl2pkcs7 -nocrl -certfile server.crt -out made")
		}, "PKCS #7", "openssl pkcs7", true},
		"PKCS #7 in DER": {"server.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl crl2pkcs7 -nocrl -certfile server.crt -outform der -out made")
		}, "PKCS #7", "openssl pkcs7", true},
		"an RSA-PSS key": {"server.key", func(f *fixture, _ []byte) []byte {
			return f.made("openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out made")
		}, "an RSA-PSS key", "openssl genpkey", false},
		"a leaf with an RSA-PSS key": {"server.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl req -x509 -newkey rsa-pss -pkeyopt rsa_keygen_bits:2048 -nodes -keyout x -subj /CN=x -out made")
		}, "an RSA-PSS key", "openssl genpkey", false},
		"a key on secp256k1": {"server.key", func(f *fixture, _ []byte) []byte {
			return f.made("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out made")
		}, "secp256k1", "openssl genpkey", false},
		"a key on brainpool, SEC 1": {"server.key", func(f *fixture, _ []byte) []byte {
			return f.made("openssl ecparam -name brainpoolP256r1 -genkey -noout -out made")
		}, "brainpoolP256r1", "openssl genpkey", false},
		"a leaf with a brainpool key": {"server.crt", func(f *fixture, _ []byte) []byte {
			return f.made("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:brainpoolP256r1 -nodes -keyout x -subj /CN=x -out made")
		}, "brainpoolP256r1", "openssl genpkey", false},
		"an Ed448 key":              {"server.key", func(f *fixture, _ []byte) []byte { return f.made("openssl genpkey -algorithm ED448 -out made") }, "an Ed448 key", "openssl genpkey", false},
		"an encrypted key in DER":   {"server.key", func(f *fixture, _ []byte) []byte { return der(f.encrypted("")) }, "an encrypted private key in DER", "openssl pkcs8", false},
		"an allow file in UTF-16":   {"allow", func(_ *fixture, good []byte) []byte { return toUTF16(good, "LE") }, "UTF-16", "iconv", true},
		"a users file in UTF-16":    {"users.yaml", func(_ *fixture, good []byte) []byte { return toUTF16(good, "LE") }, "UTF-16", "iconv", true},
		"PEM whose lines end in CR": {"server.crt", func(_ *fixture, good []byte) []byte { return bytes.ReplaceAll(good, []byte("\n"), []byte("\r")) }, "CR alone", "tr", true},
		"a Java key store":          {"server.crt", func(*fixture, []byte) []byte { return []byte("\xfe\xed\xfe\xed\x00\x00\x00\x02") }, "Java key store", "keytool", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.withCRL(f.revoking(f.ca))
			f.write("allow", []byte("cn:client\n"))
			f.write("password", []byte("secret\n"))
			f.write("users.yaml", []byte(usersOfTwo))
			f.opts.Login = Login{AllowFile: f.path("allow"), UsersFile: f.path("users.yaml")}
			s := f.open()
			good := f.read(c.file)
			f.write(c.file, c.make(f, good))
			_, err := s.Reload()
			fault, ok := errors.AsType[*Fault](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			// Commands name the file in full.
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(strings.ReplaceAll(fault.Cure, f.dir+"/", ""), c.cure) || fault.File != f.path(c.file) {
				t.Fatalf("got %q with the cure %q", fault.Err, fault.Cure)
			}
			if !c.cured {
				return
			}
			_, command, _ := strings.Cut(fault.Cure, ": ")
			f.run(command)
			f.write(c.file, f.read(c.file+".pem"))
			if _, err := s.Reload(); err != nil {
				t.Errorf("after %s: %v", command, err)
			}
		})
	}
}

func (f *fixture) made(command string) []byte {
	f.t.Helper()
	f.run(command)
	return f.read("made")
}

// encrypted is the key of the server in encrypted PKCS #8.
func (f *fixture) encrypted(options string) []byte {
	f.t.Helper()
	return f.made("openssl pkcs8 -topk8 -in server.key -passout 'pass:a secret' -out made " + options)
}

func (f *fixture) encryptedOld() []byte {
	f.t.Helper()
	return f.made("openssl ec -in server.key -aes256 -passout 'pass:a secret' -out made")
}

func TestSwappedFilesAreNamedOnce(t *testing.T) {
	f := newFixture(t)
	f.opts.CertFiles, f.opts.KeyFiles = f.opts.KeyFiles, f.opts.CertFiles
	_, err := Open(f.opts)
	if got := reasons(err); len(got) != 1 || !strings.Contains(err.Error(), "certificate and key are swapped") {
		t.Errorf("got %v", err)
	}
}

func TestAByteOrderMarkIsSkipped(t *testing.T) {
	f := newFixture(t)
	f.withCRL(f.revoking(f.ca))
	f.write("allow", []byte("cn:client\n"))
	f.write("password", []byte("secret\n"))
	f.write("users.yaml", []byte(usersOfTwo))
	f.opts.Login = Login{AllowFile: f.path("allow"), UsersFile: f.path("users.yaml")}
	f.write("tickets", bytes.Repeat([]byte("0f1e"), 16))
	f.opts.TicketKeysFile = f.path("tickets")
	master := f.open().Snapshot().master
	for _, name := range []string{"server.crt", "server.key", "ca.crt", "ca.crl", "allow", "users.yaml", "tickets"} {
		f.write(name, slices.Concat([]byte("\xef\xbb\xbf"), f.read(name)))
	}
	s := f.open()
	f.wantAdmitted(s, f.client)
	if !bytes.Equal(s.Snapshot().master, master) {
		t.Error("the ticket keys are others")
	}
}

func algorithm(t *testing.T, oid string, params any) pkix.AlgorithmIdentifier {
	t.Helper()
	der, err := asn1.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	var id asn1.ObjectIdentifier
	for part := range strings.SplitSeq(oid, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatal(err)
		}
		id = append(id, n)
	}
	return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: der}}
}

func TestEncryptedKeysAreDecrypted(t *testing.T) {
	for name, options := range map[string]string{
		"the default of OpenSSL": "", "AES-128": "-v2 aes-128-cbc", "scrypt": "-scrypt", "SHA-1": "-v2prf hmacWithSHA1", "3DES": "-v2 des3",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.opts.KeyPasswordFile = f.path("passphrase")
			f.write("passphrase", []byte("a secret\r\n"))
			f.write("server.key", f.encrypted(options))
			s := f.open()
			f.dial(f.serve(s.TLSConfig()), f.clientConfig())
			// It is part of the pair: a new one takes effect with its key.
			f.write("passphrase", []byte("another"))
			if _, err := s.Reload(); reasonOf(err) != ReasonParse || !strings.Contains(err.Error(), "passphrase") {
				t.Errorf("a wrong passphrase: %v", err)
			}
			f.write("passphrase", []byte("a secret"))
			if _, err := s.Reload(); err != nil {
				t.Errorf("put right: %v", err)
			}
		})
	}
	t.Run("toward the backend", func(t *testing.T) {
		f := newFixture(t)
		f.writePair("server", f.issue(f.ca, pki.Leaf{CN: "proxy", Client: true}))
		f.write("server.key", f.encrypted(""))
		f.write("passphrase", []byte("a secret\n"))
		c, err := OpenClient(ClientOptions{CertFile: f.path("server.crt"), KeyFile: f.path("server.key"), KeyPasswordFile: f.path("passphrase"), Log: f.opts.Log})
		f.must(err)
		if len(c.TLSConfig().Certificates) != 1 || !slices.Contains(c.Files(), f.path("passphrase")) {
			t.Errorf("shows %d certificates, reads %q", len(c.TLSConfig().Certificates), c.Files())
		}
	})
	t.Run("one that is not encrypted needs none", func(t *testing.T) {
		f := newFixture(t)
		f.opts.KeyPasswordFile = f.path("passphrase")
		f.write("passphrase", []byte("a secret"))
		f.open()
	})
	t.Run("an empty passphrase", func(t *testing.T) {
		f := newFixture(t)
		f.write("server.key", f.encrypted(""))
		f.opts.KeyPasswordFile = f.path("passphrase")
		f.write("passphrase", []byte("\n"))
		if _, err := Open(f.opts); err == nil || !slices.Equal(reasons(err), []string{"passphrase parse"}) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("PBES1", func(t *testing.T) {
		f := newFixture(t)
		f.opts.KeyPasswordFile = f.path("passphrase")
		f.write("passphrase", []byte("a secret"))
		f.write("server.key", f.encrypted("-v1 PBE-SHA1-3DES"))
		if _, err := Open(f.opts); err == nil || !strings.Contains(err.Error(), "openssl pkcs8 -topk8 -v2 aes-256-cbc") {
			t.Errorf("got %v", err)
		}
	})
	// A reload that never ends would hold every other file back.
	for name, kdf := range map[string]pkix.AlgorithmIdentifier{
		"too many iterations": algorithm(t, "1.2.840.113549.1.5.12", struct {
			Salt       []byte
			Iterations int
		}{[]byte("salt"), 1 << 31}),
		"too much memory": algorithm(t, "1.3.6.1.4.1.11591.4.11", struct {
			Salt                []byte
			Cost, Blocks, Lanes int
		}{[]byte("salt"), 1 << 22, 8, 1}),
		"too many lanes": algorithm(t, "1.3.6.1.4.1.11591.4.11", struct {
			Salt                []byte
			Cost, Blocks, Lanes int
		}{[]byte("salt"), 1 << 14, 8, 1 << 20}),
	} {
		t.Run(name, func(t *testing.T) {
			cipher := algorithm(t, "2.16.840.1.101.3.4.1.42", make([]byte, 16))
			dear, err := asn1.Marshal(struct {
				Algorithm pkix.AlgorithmIdentifier
				Data      []byte
			}{algorithm(t, oidPBES2, struct{ KDF, Cipher pkix.AlgorithmIdentifier }{kdf, cipher}), make([]byte, 32)})
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseKey("f", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: dear}), func() ([]byte, error) { return []byte("a secret"), nil })
			if err == nil || !strings.Contains(err.Error(), "too long or too much memory") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("damaged at any byte", func(t *testing.T) {
		f := newFixture(t)
		f.opts.KeyPasswordFile = f.path("passphrase")
		f.write("passphrase", []byte("a secret"))
		good := der(f.encrypted("-iter 1"))
		for i := range 2 * len(good) {
			bad := slices.Clone(good)
			bad[i/2] ^= []byte{1, 0x80}[i%2]
			_, err := parseKey("f", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: bad}), func() ([]byte, error) { return []byte("a secret"), nil })
			if err != nil && (strings.Contains(err.Error(), "a secret") || len(err.Error()) > 1000) {
				t.Fatalf("byte %d: %v", i/2, err)
			}
		}
	})
}

func TestNoPassphraseShows(t *testing.T) {
	f := newFixture(t)
	f.opts.KeyPasswordFile = f.path("passphrase")
	f.write("passphrase", []byte("another secret"))
	s := f.open()
	f.writePair("server", f.issue(f.ca, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true}))
	f.write("server.key", f.encrypted(""))
	if _, err := s.Reload(); err == nil || strings.Contains(err.Error(), "secret") || f.log.count("secret") > 0 {
		t.Errorf("got %v; log:\n%s", err, f.log.buf.String())
	}
}
