package identity

import (
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"dragontls/certs/pki"
)

func TestRenewedCertificateIsTheSameIdentity(t *testing.T) {
	root, other := newCA(t, "root"), newCA(t, "root") // the same name, another key
	prod, err := root.Intermediate("prod")
	must(t, err)
	leaf := pki.Leaf{CN: "web", OU: []string{"payments"}, DNS: []string{"a.internal", "b.internal"}, URIs: []string{"spiffe://prod/web"}}
	first := FromChain(verified(t, root, root, leaf))

	renewed := leaf // pki gives it another serial, key and dates
	renewed.DNS = []string{"b.internal", "a.internal", "a.internal"}
	for name, s := range map[string]Subject{
		"renewed, its SANs in another order": FromChain(verified(t, root, root, renewed)),
		"issued by an intermediate":          FromChain(verified(t, root, prod, leaf)),
	} {
		if s.ID != first.ID || s.Name() != first.Name() {
			t.Errorf("%s: another identity", name)
		}
		if s.serial == first.serial || s.spki == first.spki {
			t.Errorf("%s: nothing was renewed", name)
		}
	}

	change := func(edit func(*pki.Leaf)) pki.Leaf { l := leaf; edit(&l); return l }
	for name, chain := range map[string][]*x509.Certificate{
		"another CA":       verified(t, other, other, leaf),
		"another CN":       verified(t, root, root, change(func(l *pki.Leaf) { l.CN = "web2" })),
		"another OU":       verified(t, root, root, change(func(l *pki.Leaf) { l.OU = nil })),
		"a SAN more":       verified(t, root, root, change(func(l *pki.Leaf) { l.DNS = append([]string{"c.internal"}, l.DNS...) })),
		"a SAN less":       verified(t, root, root, change(func(l *pki.Leaf) { l.DNS = l.DNS[:1] })),
		"no URI":           verified(t, root, root, change(func(l *pki.Leaf) { l.URIs = nil })),
		"an IP SAN":        verified(t, root, root, change(func(l *pki.Leaf) { l.IPs = []net.IP{{10, 0, 0, 1}} })),
		"an e-mail SAN":    verified(t, root, root, change(func(l *pki.Leaf) { l.Emails = []string{"web@internal"} })),
		"the case of SANs": verified(t, root, root, change(func(l *pki.Leaf) { l.DNS = []string{"A.internal", "b.internal"} })),
	} {
		if s := FromChain(chain); s.ID == first.ID {
			t.Errorf("%s: the same identity", name)
		}
	}
}

// A name must not become another by moving between kinds or over a boundary.
func TestIdentityKeepsKindsAndBoundariesApart(t *testing.T) {
	f := newForge(t)
	seen := make(map[[32]byte]string)
	for name, h := range map[string]holder{
		"none":                     {},
		"cn":                       {cn: []string{"a"}},
		"ou":                       {ou: []string{"a"}},
		"dns a":                    {dns: []string{"a"}},
		"email a":                  {email: []string{"a"}},
		"uri a:b":                  {uri: []string{"a:b"}},
		"dns a, b":                 {dns: []string{"a", "b"}},
		"dns ab":                   {dns: []string{"ab"}},
		"dns a, uri b":             {dns: []string{"a"}, uri: []string{"b:"}},
		"with a NUL":               {dns: []string{"a\x00"}},
		"dns that looks like a, b": {dns: []string{"a\x00\x00\x00\x00\x00\x00\x00\x02b"}}, // were there no lengths
	} {
		id := f.subject(h).ID
		if seen[id] != "" {
			t.Errorf("%s and %s are the same identity", name, seen[id])
		}
		seen[id] = name
	}
}

func TestNameIsPrintableAndBounded(t *testing.T) {
	f := newForge(t)
	for _, c := range []struct {
		holder holder
		want   string
	}{
		{holder{cn: []string{"web"}, dns: []string{"web.internal"}, uri: []string{"SPIFFE://Prod/ns/A"}}, "uri:spiffe://prod/ns/A"},
		{holder{cn: []string{"web"}, dns: []string{"b.internal", "A.internal"}}, "dns:a.internal"},
		{holder{cn: []string{"web"}, email: []string{"jo@corp.example"}}, "cn:web"},
		{holder{email: []string{"Jo@Corp.example"}}, "email:Jo@corp.example"},
		{holder{}, "serial:1"},
		{holder{cn: []string{"web\nlevel=error"}}, "serial:1"},
		{holder{cn: []string{"web"}, dns: []string{"*.internal"}}, "cn:web"},
		{holder{cn: []string{"a\u202eb\u00a0c"}}, "cn:a\ufffdb\ufffdc"},
		{holder{cn: []string{strings.Repeat("ü", 100)}}, "cn:" + strings.Repeat("ü", 62) + "…"},
	} {
		got := f.subject(c.holder).Name()
		if got != c.want {
			t.Errorf("%+q: got %q, want %q", c.holder.names(), got, c.want)
		}
		if len(got) > maxName+len("…") || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is no name for a log", got)
		}
	}
}

func TestUnreadableSANsGiveNoNameAndTellIdentitiesApart(t *testing.T) {
	f := newForge(t)
	subject := func(ext string) Subject {
		leaf := f.leaf(holder{dns: []string{"a.internal"}})
		c := *leaf
		c.Extensions = append(c.Extensions[:0:0], c.Extensions...)
		for i := range c.Extensions {
			if c.Extensions[i].Id.Equal(oidSubjectAltName) && ext != "" {
				c.Extensions[i].Value = []byte(ext)
			}
		}
		return FromChain([]*x509.Certificate{&c, f.root})
	}
	good := subject("")
	a, b := subject("\x30\x05\x82\x09a"), subject("\x30\x02\x82\x03")
	if len(good.dns) != 1 || len(a.dns)+len(b.dns) != 0 {
		t.Fatalf("got names %q %q %q", good.dns, a.dns, b.dns)
	}
	if good.ID == a.ID || a.ID == b.ID {
		t.Fatal("the same identity")
	}
}
