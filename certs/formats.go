package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"strings"
)

// wanted is what a file should hold.
type wanted string

const (
	wantCertificates wanted = "certificate"
	wantKey          wanted = "private key"
	wantCRLs         wanted = "CRL"
)

// form is something that people bring where PEM is wanted: what it is, and what to do about it. No field quotes the file.
type form struct{ name, cure string }

func (f form) Error() string { return "it is " + f.name }

// withoutBOM skips the byte order mark that some editors put before UTF-8.
func withoutBOM(data []byte) []byte { return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) }

// recognise returns what the file holds that is not what is wanted, if it knows.
func recognise(file string, data []byte, want wanted) (form, bool) {
	for _, look := range []func(string, []byte, wanted) (form, bool){recogniseText, recogniseBlocks, recogniseDER, recogniseBase64} {
		if f, ok := look(file, data, want); ok {
			return f, true
		}
	}
	return form{}, false
}

// nothingWanted faults a file that holds nothing of what is wanted, and names what it holds instead.
func nothingWanted(file string, data []byte, want wanted, cure string) *Fault {
	if f, ok := recognise(file, data, want); ok {
		return newFault(file, ReasonParse, f.cure, "parse %q: it holds no PEM %s: %w", file, want, f)
	}
	return newFault(file, ReasonParse, cure, "parse %q: it holds no PEM %s", file, want)
}

// damagedBlocks faults a file of which some blocks cannot be read, and names what has happened to it.
func damagedBlocks(file string, data []byte, damaged, begun int, cure string) *Fault {
	if f, ok := recogniseText(file, data, ""); ok {
		return newFault(file, ReasonParse, f.cure, "parse %q: %w", file, f)
	}
	return newFault(file, ReasonParse, cure, "parse %q: %d of %d PEM blocks are incomplete or damaged", file, damaged, begun)
}

var (
	begin    = []byte("-----BEGIN ")
	indented = regexp.MustCompile(`(?m)^[ \t]+-----BEGIN `)
)

// converted is a command that writes what is wanted to another file.
func converted(file, command string) string {
	return "convert it: " + strings.ReplaceAll(command, "FILE", shellWord(file)) + shellWord(file+".pem")
}

// shellWord quotes a path for a shell where that is needed.
func shellWord(path string) string {
	if strings.Trim(path, "/._-+@:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// recogniseText knows what happens to PEM on its way through editors, shells and templates.
func recogniseText(file string, data []byte, _ wanted) (form, bool) {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return form{"empty", "write the file, or name another one"}, true
	case isUTF16(data):
		return form{"text in UTF-16, as PowerShell and Notepad write it", converted(file, "iconv -f UTF-16 -t UTF-8 FILE > ")}, true
	case bytes.Contains(data, []byte("----------BEGIN ")):
		return form{"PEM with two blocks on one line: a file without a line end at its end was put before another",
			converted(file, `sed 's/----------BEGIN /-----\n-----BEGIN /g' FILE > `)}, true
	case indented.Match(data):
		return form{"PEM that is indented, as in YAML", converted(file, `sed 's/^[[:space:]]*//' FILE > `)}, true
	case bytes.Contains(data, begin) && bytes.Contains(data, []byte(`-----\n`)):
		return form{`PEM whose line ends are written as \n`, converted(file, `sed 's/\\n/\n/g' FILE > `)}, true
	case bytes.Contains(data, begin) && !bytes.Contains(data, []byte("\n")):
		if bytes.Contains(data, []byte("\r")) {
			return form{"PEM whose lines end in CR alone", converted(file, `tr '\r' '\n' < FILE > `)}, true
		}
		return form{"PEM without line ends", "export it again, and keep the line ends"}, true
	}
	return form{}, false
}

func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) ||
		bytes.Contains(data, []byte("B\x00E\x00G\x00I\x00N"))
}

// recogniseBlocks goes by the first block of PEM that is neither what is wanted nor may stand beside it.
func recogniseBlocks(file string, data []byte, want wanted) (form, bool) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return form{}, false
		}
		if f, ok := formOfBlock(file, block, want); ok {
			return f, true
		}
	}
}

func formOfBlock(file string, block *pem.Block, want wanted) (form, bool) {
	switch block.Type {
	case "TRUSTED CERTIFICATE":
		return form{"a TRUSTED CERTIFICATE, which holds OpenSSL's trust settings too", converted(file, "openssl x509 -in FILE -out ")}, want == wantCertificates
	case "CERTIFICATE", "X509 CERTIFICATE":
		return certificateForm(want), want != wantCertificates
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return keyForm(want), want != wantKey
	case "OPENSSH PRIVATE KEY":
		return form{"a private key in the form of OpenSSH", "convert a copy of it in place: ssh-keygen -p -m PKCS8 -f " + shellWord(file)}, true
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		return requestForm, true
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return publicForm, true
	case "X509 CRL":
		return form{"a CRL", "name it in DRAGONTLS_TLS_CRL_FILE"}, want != wantCRLs
	case "PKCS7", "CMS":
		return form{"PKCS #7", converted(file, "openssl pkcs7 -print_certs -in FILE -out ")}, true
	case "PKCS12":
		return pkcs12Form(file, want), true
	}
	return form{}, false
}

var (
	requestForm = form{"a certificate request (CSR), which no CA has signed yet", "send it to the CA, and name the certificate that comes back"}
	publicForm  = form{"a public key alone", "name the certificate that the CA has issued for it, or the private key that belongs to it"}
)

func certificateForm(want wanted) form {
	return form{"a certificate", "name the file with the " + string(want) + " here"}
}

func keyForm(want wanted) form {
	return form{"a private key", "name the file with the " + string(want) + " here, and make sure that nobody else may read the key"}
}

func pkcs12Form(file string, want wanted) form {
	if want == wantKey {
		return form{"PKCS #12 (.p12, .pfx)", converted(file, "openssl pkcs12 -in FILE -nocerts -nodes -out ")}
	}
	return form{"PKCS #12 (.p12, .pfx)", converted(file, "openssl pkcs12 -in FILE -nokeys -out ")}
}

// recogniseDER knows binary files.
func recogniseDER(file string, data []byte, want wanted) (form, bool) {
	if bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}) {
		return form{"a Java key store (JKS)", "export it first: keytool -importkeystore -srckeystore " + shellWord(file) + " -deststoretype PKCS12 -destkeystore " + shellWord(file+".p12")}, true
	}
	var outer asn1.RawValue
	if len(data) == 0 || data[0] != 0x30 {
		return form{}, false
	}
	if _, err := asn1.Unmarshal(data, &outer); err != nil {
		return form{}, false
	}
	der := outer.FullBytes
	switch {
	case isCertificateDER(der):
		if want != wantCertificates {
			return certificateForm(want), true
		}
		return form{"a certificate in DER", converted(file, "openssl x509 -inform der -in FILE -out ")}, true
	case isKeyDER(der):
		if want != wantKey {
			return keyForm(want), true
		}
		return form{"a private key in DER", converted(file, "openssl pkey -inform der -in FILE -out ")}, true
	case isRequestDER(der):
		return requestForm, true
	case isPublicDER(der):
		return publicForm, true
	case isPKCS12(der):
		return pkcs12Form(file, want), true
	case isPKCS7(der):
		return form{"PKCS #7 in DER", converted(file, "openssl pkcs7 -print_certs -inform der -in FILE -out ")}, true
	case isCRLDER(der):
		return form{"a CRL in DER", "name it in DRAGONTLS_TLS_CRL_FILE"}, want != wantCRLs
	case isEncryptedKey(der):
		if want != wantKey {
			return keyForm(want), true
		}
		return form{"an encrypted private key in DER", converted(file, "openssl pkcs8 -topk8 -v2 aes-256-cbc -inform der -in FILE -out ")}, true
	}
	return form{}, false
}

func isCertificateDER(der []byte) bool {
	_, err := x509.ParseCertificate(der)
	return err == nil
}

func isRequestDER(der []byte) bool {
	_, err := x509.ParseCertificateRequest(der)
	return err == nil
}

func isPublicDER(der []byte) bool {
	_, err := x509.ParsePKIXPublicKey(der)
	return err == nil
}

func isCRLDER(der []byte) bool {
	_, err := x509.ParseRevocationList(der)
	return err == nil
}

func isKeyDER(der []byte) bool {
	if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return true
	}
	if _, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return true
	}
	_, err := x509.ParseECPrivateKey(der)
	return err == nil
}

// isPKCS12 looks at the outer form only (RFC 7292, 4): version 3 before the content.
func isPKCS12(der []byte) bool {
	var outer struct {
		Version int
		Content asn1.RawValue
		MAC     asn1.RawValue `asn1:"optional"`
	}
	_, err := asn1.Unmarshal(der, &outer)
	return err == nil && outer.Version == 3 && outer.Content.Tag == asn1.TagSequence
}

// isPKCS7 looks at the type of the content (RFC 5652, 3).
func isPKCS7(der []byte) bool {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"optional"`
	}
	_, err := asn1.Unmarshal(der, &outer)
	return err == nil && strings.HasPrefix(outer.Type.String(), "1.2.840.113549.1.7.")
}

// isEncryptedKey looks at the algorithm, one of PKCS #5 (RFC 5958, 3).
func isEncryptedKey(der []byte) bool {
	oid, ok := encryptionOf(der)
	return ok && (strings.HasPrefix(oid, "1.2.840.113549.1.5.") || strings.HasPrefix(oid, "1.2.840.113549.1.12.1."))
}

// recogniseBase64 knows PEM or DER that was encoded once more, or once too little.
func recogniseBase64(file string, data []byte, want wanted) (form, bool) {
	inner, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), ""))
	if err != nil || len(inner) == 0 {
		return form{}, false
	}
	if bytes.HasPrefix(inner, begin) {
		return form{"PEM in base64 once more, as in the data of a Kubernetes secret", converted(file, "base64 -d FILE > ")}, true
	}
	f, ok := recogniseDER(file, inner, want)
	if !ok {
		return form{}, false
	}
	return form{f.name + ", in base64 without its BEGIN and END lines", "put the BEGIN and END lines back, or export it again as PEM"}, true
}
