package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"dragontls/certs/reload"

	"github.com/youmark/pkcs8"
)

const (
	keyForms   = "the file must hold one PEM key (PKCS #8, PKCS #1 or SEC 1)"
	keyReissue = "make a key that can be used here, and have the certificate issued for it: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY"
)

// readKey reads the key of a pair, and the passphrase if the key is encrypted.
func readKey(c reload.Contents, files pairFiles) (crypto.Signer, error) {
	data, err := c.Get(files.key)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(files.key, data, func() ([]byte, error) { return readPassphrase(c, files) })
	if err == nil {
		return key, nil
	}
	if fault, ok := errors.AsType[*Fault](err); ok {
		return nil, fault // of the passphrase's file
	}
	cure := keyForms
	if f, ok := errors.AsType[form](err); ok {
		cure = f.cure
	}
	return nil, newFault(files.key, ReasonParse, cure, "parse key %q: %w", files.key, err)
}

// readPassphrase returns the passphrase without one line end at its end, or nil if none is configured.
func readPassphrase(c reload.Contents, files pairFiles) ([]byte, error) {
	if files.password == "" {
		return nil, nil
	}
	data, err := c.Get(files.password)
	if err != nil {
		return nil, err
	}
	text := bytes.TrimSuffix(bytes.TrimSuffix(withoutBOM(data), []byte("\n")), []byte("\r"))
	if len(text) == 0 || isUTF16(data) {
		return nil, newFault(files.password, ReasonParse, "write the passphrase of the key to it, in one line of UTF-8",
			"read the passphrase of %q: %q holds none", files.key, files.password)
	}
	return text, nil
}

// parseKey takes the first key of the file. passphrase is asked only if the key is encrypted.
func parseKey(file string, data []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	data = withoutBOM(data)
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if f, ok := recognise(file, data, wantKey); ok {
				return nil, f
			}
			return nil, errors.New("it holds no complete PEM key")
		}
		key, err := parseKeyBlock(file, block, passphrase)
		if key != nil || err != nil {
			return key, err
		}
	}
}

// parseKeyBlock returns neither a key nor an error for blocks that may stand beside a key: certificates, and the parameters
// of a curve.
func parseKeyBlock(file string, block *pem.Block, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if block.Headers["DEK-Info"] != "" {
		return nil, form{"encrypted in the old way (DEK-Info), which protects it badly", "convert it, and set DRAGONTLS_TLS_KEY_PASSWORD_FILE: openssl pkcs8 -topk8 -v2 aes-256-cbc -in " +
			shellWord(file) + " -out " + shellWord(file+".pem")}
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		key, err = decryptKey(file, block.Bytes, passphrase)
	default:
		return nil, nil
	}
	if err != nil {
		if kind := unusableKey(block.Bytes); kind != "" {
			return nil, form{kind + ", which TLS cannot use here", keyReissue}
		}
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, form{"a key of a kind that TLS cannot use here", keyReissue}
}

// decryptKey decrypts PKCS #8. The library knows PBES2 with PBKDF2 or scrypt, which is what OpenSSL has made since 1.1.0.
func decryptKey(file string, der []byte, passphrase func() ([]byte, error)) (key any, err error) {
	password, err := passphrase()
	if err != nil {
		return nil, err
	}
	if password == nil {
		return nil, form{"encrypted", "name a file with its passphrase in DRAGONTLS_TLS_KEY_PASSWORD_FILE, or decrypt it: openssl pkey -in " +
			shellWord(file) + " -out " + shellWord(file+".pem")}
	}
	if !affordable(der) {
		return nil, form{"encrypted, and to decrypt it would take too long or too much memory", "encrypt it again: openssl pkcs8 -topk8 -v2 aes-256-cbc -in " +
			shellWord(file) + " -out " + shellWord(file+".pem")}
	}
	defer func() {
		if recover() != nil { // the library takes the length of the initialization vector on trust
			key, err = nil, errors.New("it is encrypted, and its parameters are damaged")
		}
	}()
	key, err = pkcs8.ParsePKCS8PrivateKey(der, password)
	if err == nil {
		return key, nil
	}
	if oid, _ := encryptionOf(der); oid != oidPBES2 {
		return nil, form{"encrypted with PBES1 or in a form of its own", "convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in " + shellWord(file) + " -out " + shellWord(file+".pem")}
	}
	// Not its text: the passphrase is what matters in nearly all cases.
	return nil, form{fmt.Sprintf("encrypted, and cannot be decrypted with the passphrase that is configured (%v)", err),
		"correct the passphrase, or encrypt the key again: openssl pkcs8 -topk8 -v2 aes-256-cbc -in " + shellWord(file) + " -out " + shellWord(file+".pem")}
}

const (
	// maxIterations of PBKDF2 take some seconds; OpenSSL makes 2,048 and OWASP asks for 600,000 with passwords of people.
	maxIterations = 10_000_000
	// maxScryptMemory and maxScryptLanes bound scrypt, in bytes; OpenSSL takes 16 MiB and one lane.
	maxScryptMemory = 256 << 20
	maxScryptLanes  = 16
)

// affordable reports whether the key derivation of an encrypted key (RFC 8018, A.4) stays within limits: it runs in turn with
// all reloads. What cannot be parsed is left to the library.
func affordable(der []byte) bool {
	var outer struct {
		Algorithm struct {
			OID    asn1.ObjectIdentifier
			Params struct {
				KDF    pkix.AlgorithmIdentifier
				Cipher pkix.AlgorithmIdentifier
			}
		}
		Data []byte
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return true
	}
	params := outer.Algorithm.Params.KDF.Parameters.FullBytes
	var pbkdf2 struct {
		Salt       []byte
		Iterations int
		Length     int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(params, &pbkdf2); err == nil && outer.Algorithm.Params.KDF.Algorithm.String() == "1.2.840.113549.1.5.12" {
		return pbkdf2.Iterations <= maxIterations
	}
	var scrypt struct {
		Salt                []byte
		Cost, Blocks, Lanes int
		Length              int `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(params, &scrypt); err == nil {
		return scrypt.Cost > 0 && scrypt.Blocks > 0 && scrypt.Cost <= maxScryptMemory/128/min(scrypt.Blocks, maxScryptMemory) && scrypt.Lanes <= maxScryptLanes
	}
	return true
}

const oidPBES2 = "1.2.840.113549.1.5.13"

// encryptionOf returns the algorithm of an encrypted key (RFC 5958, 3).
func encryptionOf(der []byte) (oid string, ok bool) {
	var outer struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return "", false
	}
	return outer.Algorithm.Algorithm.String(), true
}

// unusableKinds are those keys, and the curves of those EC keys, that OpenSSL makes and Go does not know.
var unusableKinds = map[string]string{
	"1.2.840.113549.1.1.10": "an RSA-PSS key", "1.2.840.10040.4.1": "a DSA key", "1.2.840.113549.1.3.1": "a DH key",
	"1.3.101.110": "an X25519 key", "1.3.101.111": "an X448 key", "1.3.101.113": "an Ed448 key",
	"1.3.132.0.10": "an EC key on secp256k1", "1.2.156.10197.1.301": "an SM2 key",
	"1.3.36.3.3.2.8.1.1.7": "an EC key on brainpoolP256r1", "1.3.36.3.3.2.8.1.1.11": "an EC key on brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.13":   "an EC key on brainpoolP512r1",
	"2.16.840.1.101.3.4.3.17": "an ML-DSA-44 key", "2.16.840.1.101.3.4.3.18": "an ML-DSA-65 key", "2.16.840.1.101.3.4.3.19": "an ML-DSA-87 key",
}

// unusableKey names the kind of a private key, PKCS #8 or SEC 1, that Go does not know; empty: it is none of those.
func unusableKey(der []byte) string {
	var p8 struct {
		Version    int
		Algorithm  pkix.AlgorithmIdentifier
		Key        []byte
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
		Public     asn1.RawValue `asn1:"optional,tag:1"`
	}
	if _, err := asn1.Unmarshal(der, &p8); err == nil {
		return unusableAlgorithm(p8.Algorithm)
	}
	var sec1 struct {
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		Public  asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(der, &sec1); err == nil {
		return unusableKinds[sec1.Curve.String()]
	}
	return ""
}

func unusableAlgorithm(a pkix.AlgorithmIdentifier) string {
	if kind := unusableKinds[a.Algorithm.String()]; kind != "" {
		return kind
	}
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &curve); err == nil {
		return unusableKinds[curve.String()]
	}
	return ""
}

// unusablePublicKey names the kind of a certificate's key where Go does not know it.
func unusablePublicKey(spki []byte) string {
	var outer struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &outer); err != nil {
		return ""
	}
	return unusableAlgorithm(outer.Algorithm)
}

// unusableCertificate names the kind of the key of a certificate that crypto/x509 refuses to parse for its key.
func unusableCertificate(der []byte) string {
	var outer, tbs, field asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return ""
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &tbs); err != nil {
		return ""
	}
	rest := tbs.Bytes
	for place := 0; ; { // version (may be left out), serial, signature, issuer, validity, subject, key (RFC 5280, 4.1)
		var err error
		if rest, err = asn1.Unmarshal(rest, &field); err != nil {
			return ""
		}
		if field.Class == asn1.ClassContextSpecific && place == 0 {
			continue
		}
		if place++; place == 6 {
			return unusablePublicKey(field.FullBytes)
		}
	}
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
