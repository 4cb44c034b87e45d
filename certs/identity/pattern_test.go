package identity

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"dragontls/certs/pki"
)

func TestPatternsMatch(t *testing.T) {
	f := newForge(t)
	for _, c := range []struct {
		pattern string
		holder  holder
		want    bool
	}{
		// cn and ou: exactly, but for *.
		{"cn:web", holder{cn: []string{"web"}}, true},
		{"cn:web", holder{cn: []string{"Web"}}, false},
		{"cn:web", holder{cn: []string{"web "}}, false},
		{"cn:web", holder{cn: []string{"web.apps"}}, false},
		{"cn:web-*", holder{cn: []string{"web-1"}}, true},
		{"cn:web-*", holder{cn: []string{"web-a.b/c@d e"}}, true},
		{"cn:web-*", holder{cn: []string{"web-"}}, true},
		{"cn:web-*", holder{cn: []string{"my-web-1"}}, false},
		{"cn:*-web", holder{cn: []string{"prod-web"}}, true},
		{"cn:a*b*c", holder{cn: []string{"a-b-b-c"}}, true},
		{"cn:a*b*c", holder{cn: []string{"a-c-b"}}, false},
		{"cn:ab*ba", holder{cn: []string{"aba"}}, false},
		{"cn:*", holder{cn: []string{"x"}}, true},
		{"cn:*", holder{cn: []string{""}}, false},
		{"cn:*", holder{dns: []string{"x"}}, false},
		{"cn:Käse-*", holder{cn: []string{"Käse-1"}}, true},
		{"cn:*", holder{cn: []string{"web\r\nSET a b"}}, false},
		{"cn:web*", holder{cn: []string{"web\x00.evil"}}, false},
		{"cn:*", holder{cn: []string{"web\x7f"}}, false},
		{"cn:*", holder{cn: []string{"web\u0085"}}, false},
		{"cn:web", holder{cn: []string{"web", "admin"}}, false},
		{"cn:admin", holder{cn: []string{"web", "admin"}}, false},
		{"cn:*", holder{cn: []string{"web", "\n"}}, false},
		{"cn:web", holder{ou: []string{"web"}}, false},
		{"ou:payments", holder{ou: []string{"payments"}}, true},
		{"ou:payments", holder{ou: []string{"eng", "payments"}}, true},
		{"ou:payments", holder{ou: []string{"Payments"}}, false},
		{"ou:pay*", holder{ou: []string{"eng\n", "payments"}}, true},
		{"ou:*", holder{ou: []string{"eng\n"}}, false},

		// dns: lower case, one label for each *.
		{"dns:web.apps.internal", holder{dns: []string{"web.apps.internal"}}, true},
		{"dns:WEB.Apps.internal", holder{dns: []string{"web.apps.INTERNAL"}}, true},
		{"dns:web.apps.internal.", holder{dns: []string{"web.apps.internal"}}, true},
		{"dns:web.apps.internal", holder{dns: []string{"web.apps.internal."}}, true},
		{"dns:web.apps.internal", holder{dns: []string{"web.apps.internal.."}}, false},
		{"dns:*.apps.internal", holder{dns: []string{"web.apps.internal"}}, true},
		{"dns:*.apps.internal", holder{dns: []string{"a.b.apps.internal"}}, false},
		{"dns:*.apps.internal", holder{dns: []string{"apps.internal"}}, false},
		{"dns:*.apps.internal", holder{dns: []string{".apps.internal"}}, false},
		{"dns:*.apps.internal", holder{dns: []string{"web.apps.internal.evil.example"}}, false},
		{"dns:*.apps.internal", holder{dns: []string{"webxapps.internal"}}, false},
		{"dns:*.apps.internal", holder{dns: []string{"*.apps.internal"}}, false},
		{"dns:*.apps.internal", holder{dns: []string{"w*.apps.internal"}}, false},
		{"dns:*.apps.internal", holder{dns: []string{"a.b.apps.internal", "web.apps.internal"}}, true},
		{"dns:*.*.internal", holder{dns: []string{"web.apps.internal"}}, true},
		{"dns:web-*.internal", holder{dns: []string{"web-7.internal"}}, true},
		{"dns:web-*.internal", holder{dns: []string{"web-7.x.internal"}}, false},
		{"dns:*", holder{dns: []string{"localhost"}}, true},
		{"dns:*", holder{dns: []string{"a.b"}}, false},
		{"dns:*", holder{cn: []string{"localhost"}}, false},
		{"dns:_x.internal", holder{dns: []string{"_x.internal"}}, true},
		{"dns:*.internal", holder{dns: []string{"web\r\n.internal"}}, false},
		{"dns:*.internal", holder{dns: []string{"web\x00.internal"}}, false},
		{"dns:*.internal", holder{dns: []string{"a b.internal"}}, false},
		{"dns:bücher.example", holder{dns: []string{"xn--bcher-kva.example"}}, true},
		{"dns:BÜCHER.example", holder{dns: []string{"XN--BCHER-KVA.example"}}, true},
		{"dns:xn--bcher-kva.example", holder{dns: []string{"xn--bcher-kva.example"}}, true},
		{"dns:*.bücher.example", holder{dns: []string{"web.xn--bcher-kva.example"}}, true},
		{"dns:straße.example", holder{dns: []string{"xn--strae-oqa.example"}}, true},
		{"dns:straße.example", holder{dns: []string{"strasse.example"}}, false},
		{"dns:bücher.example", holder{dns: []string{"bücher.example"}}, false},
		{"dns:kiosk.example", holder{dns: []string{"\u212aiosk.example"}}, false},

		// uri: scheme and host in any case, the path exactly.
		{"uri:spiffe://prod/ns/a/sa/web", holder{uri: []string{"spiffe://prod/ns/a/sa/web"}}, true},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns/a/sa/web"}}, true},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns/a/b/sa/web"}}, false},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns//sa/web"}}, false},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns/a/sa/web/x"}}, false},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns/../sa/web"}}, false},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns/./sa/web"}}, false},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns/*/sa/web"}}, false},
		{"uri:spiffe://prod/ns/*/sa/web", holder{uri: []string{"spiffe://prod/ns/A/sa/WEB"}}, false},
		{"uri:SPIFFE://Prod/ns/a", holder{uri: []string{"spiffe://pROD/ns/a"}}, true},
		{"uri:spiffe://prod/ns/a", holder{uri: []string{"spiffe://prod/ns/A"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod/a"}}, true},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod/a/b/c"}}, true},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://PROD/a"}}, true},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod/"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod/a/"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prodx/a"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod.evil.example/a"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod@evil.example/a"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod:1/a"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"https://prod/a"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod/a?b"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod/a#b"}}, false},
		{"uri:spiffe://prod/**", holder{uri: []string{"spiffe://prod/a\r\nb"}}, false},
		{"uri:spiffe://prod", holder{uri: []string{"spiffe://prod"}}, true},
		{"uri:spiffe://prod", holder{uri: []string{"spiffe://prod/"}}, false},
		{"uri:spiffe://prod/ns/**/web", holder{uri: []string{"spiffe://prod/ns/web"}}, true},
		{"uri:spiffe://prod/ns/**/web", holder{uri: []string{"spiffe://prod/ns/a/b/web"}}, true},
		{"uri:spiffe://prod/ns/**/web", holder{uri: []string{"spiffe://prod/ns/a/webx"}}, false},
		{"uri:spiffe://prod/ns/**", holder{uri: []string{"spiffe://prod/ns"}}, false},
		{"uri:spiffe://prod/**/sa/**", holder{uri: []string{"spiffe://prod/ns/a/sa/web"}}, true},
		{"uri:spiffe://prod/**/sa/**", holder{uri: []string{"spiffe://prod/ns/a/sa"}}, false},
		{"uri:spiffe://prod/**/a/*/b/**/c", holder{uri: []string{"spiffe://prod/a/a/a/x/b/c"}}, true},
		{"uri:spiffe://prod/web-*", holder{uri: []string{"spiffe://prod/web-1"}}, true},
		{"uri:spiffe://prod/web-*", holder{uri: []string{"spiffe://prod/web-1/x"}}, false},
		{"uri:spiffe://prod/a%2Fb", holder{uri: []string{"spiffe://prod/a%2Fb"}}, true},
		{"uri:spiffe://prod/a%2Fb", holder{uri: []string{"spiffe://prod/a%2fb"}}, false},
		{"uri:spiffe://prod/a/b", holder{uri: []string{"spiffe://prod/a%2Fb"}}, false},
		{"uri:urn:uuid:*", holder{uri: []string{"urn:uuid:f81d4fae"}}, true},
		{"uri:urn:**", holder{uri: []string{"urn:/a"}}, false},
		{"uri:spiffe://prod/a", holder{dns: []string{"spiffe://prod/a"}}, false},

		// email: the local part exactly, the domain as dns.
		{"email:*@corp.example", holder{email: []string{"jo.doe+x@corp.example"}}, true},
		{"email:*@corp.example", holder{email: []string{"Jo@CORP.example."}}, true},
		{"email:jo@corp.example", holder{email: []string{"Jo@corp.example"}}, false},
		{"email:*@corp.example", holder{email: []string{"jo@mail.corp.example"}}, false},
		{"email:*@corp.example", holder{email: []string{"jo@corp.example.evil.example"}}, false},
		{"email:*@corp.example", holder{email: []string{"jo@evil.example@corp.example"}}, false},
		{"email:*@corp.example", holder{email: []string{"@corp.example"}}, false},
		{"email:*@corp.example", holder{email: []string{"corp.example"}}, false},
		{"email:*@corp.example", holder{email: []string{"*@corp.example"}}, false},
		{"email:*@corp.example", holder{email: []string{"jo\n@corp.example"}}, false},
		{"email:jo@*.corp.example", holder{email: []string{"jo@mail.corp.example"}}, true},
		{"email:jo@*.corp.example", holder{email: []string{"jo@a.b.corp.example"}}, false},
		{"email:jo@bücher.example", holder{email: []string{"jo@xn--bcher-kva.example"}}, true},
		{"email:jo-*@corp.example", holder{email: []string{"jo-1@corp.example"}}, true},

		// serial: a number.
		{"serial:0a1b", holder{serial: big.NewInt(0xa1b)}, true},
		{"serial:a1b", holder{serial: big.NewInt(0xa1b)}, true},
		{"serial:000A1B", holder{serial: big.NewInt(0xa1b)}, true},
		{"serial:0A:1B", holder{serial: big.NewInt(0xa1b)}, true},
		{"serial:a1b0", holder{serial: big.NewInt(0xa1b)}, false},
		{"serial:a1", holder{serial: big.NewInt(0xa1b)}, false},
		{"serial:1", holder{}, true},
	} {
		t.Run(fmt.Sprintf("%s %+q", c.pattern, c.holder.names()), func(t *testing.T) {
			p, err := ParsePattern(c.pattern)
			must(t, err)
			if got := p.Matches(f.subject(c.holder)); got != c.want {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			again, err := ParsePattern(p.String())
			must(t, err)
			if again.String() != p.String() || again.Matches(f.subject(c.holder)) != c.want {
				t.Fatalf("%q is not its own canonical form: %q", p, again)
			}
		})
	}
	t.Logf("%d certificates that crypto/x509 would refuse were judged as well", f.refused)
}

func TestPatternFaultsSayWhatIsWrongAndWhatIsAccepted(t *testing.T) {
	for pattern, want := range map[string]string{
		"":                                     "known kind",
		"web":                                  "known kind",
		"CN:web":                               "known kind",
		"ip:10.0.0.1":                          "one of cn: ou: dns: uri: email: serial: spki: ca:",
		"cn:":                                  "nothing follows",
		"cn: web":                              "blank",
		"cn:web\r\n":                           "control character",
		"cn:a\x00b":                            "control character",
		"cn:\xff":                              "UTF-8",
		"cn:**":                                "uri: only",
		"dns:**.internal":                      "uri: only",
		"dns:a..b":                             "empty",
		"dns:.":                                "empty",
		"dns:a b":                              "letters",
		"dns:a/b":                              "letters",
		"dns:b*cher.bü*.x":                     "A-label",
		"dns:a\u3002b.ü\u3002x":                "A-label",
		"dns:" + strings.Repeat("a", 64):       "63 bytes",
		"dns:" + strings.Repeat("a.", 127):     "",
		"dns:" + strings.Repeat("aa.", 100):    "253 bytes",
		"uri:prod/ns":                          "scheme",
		"uri:*://prod":                         "scheme",
		"uri:1a:b":                             "scheme",
		"uri:spiffe://*/ns":                    "path only",
		"uri:spiffe://**":                      "path only",
		"uri:spiffe://prod/a**":                "stands alone",
		"uri:spiffe://prod/***":                "stands alone",
		"uri:spiffe://prod/*/":                 "empty",
		"uri:spiffe://prod//*":                 "empty",
		"uri:spiffe://prod/../*":               `".."`,
		"uri:spiffe://a@prod/b":                "user",
		"uri:spiffe://prod/b?c":                "query",
		"uri:spiffe://prod/b#c":                "fragment",
		"uri:spiffe://prod/ü":                  "percent-encoded",
		"email:corp.example":                   "LOCAL@DOMAIN",
		"email:@corp.example":                  "LOCAL@DOMAIN",
		"email:a@b@c":                          "more than one @",
		"email:jö@corp.example":                "ASCII",
		"email:jo@":                            "empty",
		"serial:xyz":                           "hexadecimal",
		"serial:0x1f":                          "hexadecimal",
		"serial:-1":                            "hexadecimal",
		"serial:*":                             "hexadecimal",
		"serial:1:2":                           "colon",
		"serial:01::02":                        "colon",
		"spki:" + strings.Repeat("0", 64):      "sha256/",
		"spki:sha256/":                         "not a SHA-256",
		"spki:sha256/AAAA":                     "not a SHA-256",
		"spki:sha256/*":                        "not a SHA-256",
		"ca:sha256/" + strings.Repeat("g", 64): "not a SHA-256",
		"ca:sha256/" + strings.Repeat("A", 43): "not a SHA-256", // no padding
		"ca:sha256/" + strings.Repeat("A", 42) + "B=": "not a SHA-256", // bits behind the end
		"ca:sha256/" + strings.Repeat("-", 43) + "=":  "not a SHA-256", // the alphabet of URLs
		"cn:" + strings.Repeat("a", 5000):             "4096 bytes",
	} {
		t.Run(cut(pattern, 40), func(t *testing.T) {
			_, err := ParsePattern(pattern)
			if want == "" {
				must(t, err)
				return
			}
			e, ok := errors.AsType[*PatternError](err)
			if !ok {
				t.Fatalf("accepted, want a fault with %q", want)
			}
			text := err.Error()
			problem, form, _ := strings.Cut(text, "\n")
			if !strings.Contains(text, want) || !strings.HasPrefix(problem, "pattern ") || !strings.HasPrefix(form, "want ") || e.Form == "" {
				t.Fatalf("got %q, want %q in it, and the accepted form", text, want)
			}
			if len(text) > 600 || strings.ContainsAny(text, "\r\x00") {
				t.Fatalf("it passes on what it was given: %q", text)
			}
		})
	}
}

func TestParsePatternsReportsAllFaults(t *testing.T) {
	_, err := ParsePatterns([]string{"cn:ok", "cm:web", "serial:z"})
	if err == nil || !strings.Contains(err.Error(), "cm:web") || !strings.Contains(err.Error(), "serial:z") {
		t.Fatalf("got %v, want both faults", err)
	}
	patterns, err := ParsePatterns([]string{"cn:a", "serial:0A"})
	must(t, err)
	if len(patterns) != 2 || patterns[1].String() != "serial:a" {
		t.Fatalf("got %v", patterns)
	}
}

func TestKeysOfLeafAndOfEachCAAboveMatch(t *testing.T) {
	root := newCA(t, "root")
	prod, err := root.Intermediate("prod")
	must(t, err)
	chain := verified(t, root, prod, pki.Leaf{CN: "web"})
	s := FromChain(chain)
	other := FromChain(verified(t, root, root, pki.Leaf{CN: "web"}))
	rootSum, prodSum, leafSum := spkiSum(certOf(t, root)), spkiSum(certOf(t, prod)), spkiSum(chain[0])
	for _, c := range []struct {
		kind        string
		sum         [32]byte
		want, other bool
	}{
		{"ca", rootSum, true, true},
		{"ca", prodSum, true, false},
		{"ca", leafSum, false, false},
		{"spki", leafSum, true, false},
		{"spki", prodSum, false, false},
		{"spki", rootSum, false, false},
	} {
		for _, form := range []string{base64Sum(c.sum), hex.EncodeToString(c.sum[:]), strings.ToUpper(hex.EncodeToString(c.sum[:]))} {
			p, err := ParsePattern(c.kind + ":sha256/" + form)
			must(t, err)
			if got := p.Matches(&s); got != c.want {
				t.Errorf("%s: got %v, want %v", p, got, c.want)
			}
			if got := p.Matches(&other); got != c.other {
				t.Errorf("%s against one issued by the root: got %v, want %v", p, got, c.other)
			}
			if want := c.kind + ":sha256/" + base64Sum(c.sum); p.String() != want {
				t.Errorf("got %s, want %s", p, want)
			}
		}
	}
	// A leaf that is its own anchor has no CA.
	alone := FromChain(chain[:1])
	if p, _ := ParsePattern("ca:sha256/" + base64Sum(leafSum)); p.Matches(&alone) {
		t.Error("a leaf without a CA matches ca:")
	}
}

func TestAnyAndAll(t *testing.T) {
	f := newForge(t)
	s := f.subject(holder{cn: []string{"web"}, dns: []string{"a.internal", "b.internal"}})
	parse := func(list ...string) []Pattern {
		patterns, err := ParsePatterns(list)
		must(t, err)
		return patterns
	}
	for _, c := range []struct {
		patterns []Pattern
		any, all bool
	}{
		{nil, false, false},
		{parse("cn:web"), true, true},
		{parse("cn:web", "cn:api"), true, false},
		{parse("cn:x", "cn:api"), false, false},
		{parse("dns:a.internal", "dns:b.internal"), true, true}, // each by another SAN
		{parse("dns:a.internal", "dns:b.internal", "cn:web"), true, true},
		{[]Pattern{{}}, false, false},
	} {
		if got := NewSet(c.patterns).Matches(s); got != c.any {
			t.Errorf("%v: any is %v, want %v", c.patterns, got, c.any)
		}
		if got := MatchAll(c.patterns, s); got != c.all {
			t.Errorf("%v: all is %v, want %v", c.patterns, got, c.all)
		}
	}
}

func TestNothingMatchesWhoProvedNothing(t *testing.T) {
	for _, s := range []Subject{{}, FromChain(nil), FromChain([]*x509.Certificate{})} {
		for _, text := range []string{"cn:*", "ou:*", "dns:*", "uri:a:*", "email:*@*", "serial:0",
			"spki:sha256/" + base64Sum([32]byte{}), "ca:sha256/" + base64Sum([32]byte{})} {
			p, err := ParsePattern(text)
			must(t, err)
			if p.Matches(&s) {
				t.Errorf("%s matches", text)
			}
		}
		if s.Name() != "" {
			t.Errorf("got name %q, want none", s.Name())
		}
	}
}

func TestDigestOfPatternsKnowsNoOrder(t *testing.T) {
	parse := func(list ...string) [32]byte {
		patterns, err := ParsePatterns(list)
		must(t, err)
		return NewSet(patterns).Digest()
	}
	one := parse("dns:A.internal", "cn:web")
	if one != parse("cn:web", "dns:a.internal.", "cn:web") {
		t.Error("order, case or repetition changes the digest")
	}
	if one == parse("cn:web") || one == parse() || parse("cn:a", "cn:b") == parse("cn:ab") {
		t.Error("other patterns have the same digest")
	}
}

// A matcher that goes back from star to star would not end before the test's own limit.
func TestManyStarsCostNoMoreThanTheName(t *testing.T) {
	f := newForge(t)
	stars := strings.Repeat("*a", 200)
	long := strings.Repeat("a", 60000)
	segments := strings.Repeat("/a", 20000)
	for pattern, h := range map[string]holder{
		"cn:" + stars + "*b":  {cn: []string{long}},
		"cn:" + stars + "*ab": {cn: []string{long + "b"}},
		"uri:spiffe://prod" + strings.Repeat("/**/a/*", 200) + "/**/b": {uri: []string{"spiffe://prod" + segments}},
		"uri:spiffe://prod/" + stars + "*b":                            {uri: []string{"spiffe://prod/" + long}},
		"email:" + stars + "*b@corp.example":                           {email: []string{long + "@corp.example"}},
		"dns:" + strings.Repeat("*a", 30) + "*b":                       {dns: []string{strings.Repeat("a", 63)}},
	} {
		p, err := ParsePattern(pattern)
		must(t, err)
		if want := strings.HasSuffix(pattern, "*ab"); p.Matches(f.subject(h)) != want {
			t.Errorf("%s: got %v, want %v", cut(pattern, 40), !want, want)
		}
	}
}
