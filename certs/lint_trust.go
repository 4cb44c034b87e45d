package certs

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"

	"dragontls/certs/identity"
)

// digests finds patterns that name the key of a CA which the bundle does not have.
func (l *linter) digests(s *Snapshot) {
	known := s.clients.digestsInUse()
	severity, meaning := SeverityError, "matches no client"
	if slices.ContainsFunc(s.clients.certs, mayHaveIntermediates) {
		severity, meaning = SeverityWarning, "matches only clients that send an intermediate CA with this key"
	}
	judge := func(subject string, patterns []identity.Pattern) {
		var unknown []string
		for _, p := range patterns {
			if digest, ok := strings.CutPrefix(p.String(), "ca:sha256/"); ok && !known[digest] {
				unknown = append(unknown, p.String())
			}
		}
		if len(unknown) > 0 {
			l.add(severity, "ca_digest_unknown", subject,
				fmt.Sprintf("no CA of the bundle has the key that %s names: it %s", strings.Join(unknown, ", "), meaning),
				"compute the digest of the CA that is meant (openssl x509 -in ca.crt -noout -pubkey | openssl pkey -pubin -outform DER | "+
					"openssl dgst -sha256 -binary | base64), or append that CA to the bundle")
		}
	}
	login := &s.opts.Login
	judge("allow patterns", login.Allow)
	if login.AllowFile != "" {
		data, _ := os.ReadFile(login.AllowFile)
		patterns, _ := identity.ParseList(data) // its faults were found when it was taken into use
		judge(login.AllowFile, patterns)
	}
	if s.login.users != nil {
		for _, rule := range s.login.users.Rules() {
			judge(fmt.Sprintf("%s:%d", login.UsersFile, rule.Line), rule.Patterns())
		}
	}
}

// digestsInUse returns the SHA-256 digests, in base64, of the public keys in the bundle.
func (b *bundle) digestsInUse() map[string]bool {
	digests := map[string]bool{}
	for _, ca := range b.certs {
		sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
		digests[base64.StdEncoding.EncodeToString(sum[:])] = true
	}
	return digests
}

// LintBundles says which bundles of CAs hold a private key as well. Empty paths and files that are not there do not count.
func LintBundles(paths ...string) []Finding {
	l := newLinter(LintOptions{})
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			continue
		}
		const cure = "move the key to a file of its own, away from this machine if it is the CA's, and make the CA anew if others could read it"
		switch keysIn(path) {
		case keyPlain:
			l.add(SeverityError, "key_in_bundle", path, "the bundle holds a private key that no passphrase protects: a bundle of CAs is read by many, and needs none", cure)
		case keyEncrypted:
			l.add(SeverityWarning, "key_in_bundle", path, "the bundle holds a private key, encrypted: a bundle of CAs needs none", cure)
		}
	}
	return l.found
}

// HoldsKey reports whether the file at path holds a private key in PEM.
func HoldsKey(path string) bool { return keysIn(path) != keyNone }

// keyKind is what a file holds of private keys.
type keyKind uint8

const (
	keyNone keyKind = iota
	keyEncrypted
	keyPlain // one at least
)

func keysIn(path string) keyKind {
	if path == "" {
		return keyNone
	}
	rest, err := os.ReadFile(path)
	if err != nil {
		return keyNone
	}
	kind := keyNone
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		case strings.HasPrefix(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			kind = max(kind, keyEncrypted)
		default:
			kind = keyPlain
		}
		clear(block.Bytes)
	}
	return kind
}
