package certs

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"golang.org/x/crypto/ocsp"
)

// certID names a certificate in a response (RFC 6960, 4.1.1). Serials are unique
// within one issuer only.
type certID struct {
	Hash     pkix.AlgorithmIdentifier
	NameHash []byte
	KeyHash  []byte
	Serial   *big.Int
}

// namesIssuer compares the hashes of the issuer's name and key, which x/crypto
// does not: it takes the first answer for the serial, and so does this.
func namesIssuer(r *ocsp.Response, issuer *x509.Certificate) bool {
	var data struct {
		Version   int `asn1:"optional,default:0,explicit,tag:0"`
		Responder asn1.RawValue
		Produced  time.Time `asn1:"generalized"`
		Answers   []struct{ ID certID }
	}
	if _, err := asn1.Unmarshal(r.TBSResponseData, &data); err != nil {
		return false
	}
	for _, answer := range data.Answers {
		if id := answer.ID; id.Serial.Cmp(r.SerialNumber) == 0 {
			return isIssuer(id, r, issuer)
		}
	}
	return false
}

func isIssuer(id certID, r *ocsp.Response, issuer *x509.Certificate) bool {
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil || !r.IssuerHash.Available() {
		return false
	}
	sum := func(b []byte) []byte {
		h := r.IssuerHash.New()
		h.Write(b)
		return h.Sum(nil)
	}
	return bytes.Equal(id.NameHash, sum(issuer.RawSubject)) && bytes.Equal(id.KeyHash, sum(key.Bits.RightAlign()))
}
