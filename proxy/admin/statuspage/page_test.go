package statuspage

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

func TestPageShowsWhatTheStatusSays(t *testing.T) {
	_, root := pageOf(t, full(query(t, "limit=2"), 5))
	for id, parts := range map[string][]string{
		"health":       {"Ready", "something is wrong", "mend it"},
		"traffic":      {"Commands a second 200", "lane", "up since 2026-12-01 09:00:00 UTC", "redis://db:6379", "10.9.9.9:6379", "200 µs", "3 (lanes: 1)", "lost 2", "refused 1"},
		"limits":       {"MAX_CONNECTIONS 90 % 9 10 1 ×", "MEMORY_LIMIT –"},
		"certificates": {"server CN=server 1 h 0 min left 2026-12-01 11:00:00 UTC /tls.crt 1a 3", "CRL CN=ca 1 h 0 min left", "3 revoked", "allow of /allow is held back since 2026-12-01 10:00:00 UTC line 2 correct it", "Trust generation 7"},
		"events":       {"2026-12-01 10:00:00 UTC refused unknown_ca 1 CN=x serial 7 10.0.0.1 not verified. a cause. a cure"},
		"sessions": {"5 of 5 sessions", "uri:spiffe://prod/sa/web-0 CN=web-0,O=Example 00000000000000000000000000000000 2026-12-01 10.0.0.0:40000 web redis-py 5.0 1.3 0 s 0 0 lane 7",
			"page 1 of 3 next last"},
	} {
		text := words(byID(t, root, id))
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %q:\n%s", id, part, text)
			}
		}
	}
}

func TestPageOfAnEmptyStatus(t *testing.T) {
	s := &Status{Health: Health{Reason: "backend_refused"}, Sessions: query(t, "").Select(nil)}
	_, root := pageOf(t, s)
	if text := words(byID(t, root, "health")); text != "Not ready: backend refused" {
		t.Errorf("got %q", text)
	}
}

// hostile is what a client could put into each text that it chooses.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'</style></title>` + "{{.}}\u202e`javascript:alert(1)"

// setTexts sets every text that v holds.
func setTexts(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type() == reflect.TypeFor[time.Time]() {
				return
			}
			setTexts(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			setTexts(v.Index(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			setTexts(v.Elem())
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			if k.Kind() != reflect.String {
				continue
			}
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(k))
			setTexts(value)
			v.SetMapIndex(k, reflect.Value{})
			v.SetMapIndex(reflect.ValueOf(k.String()+hostile), value)
		}
	}
}

// Whatever a Status says, the page has the elements and attributes that it has otherwise.
func TestPageEscapesEverything(t *testing.T) {
	shape := func(root *html.Node) (all []string) {
		each(root, func(n *html.Node) {
			one := n.Data
			for _, a := range n.Attr {
				one += " " + a.Key
			}
			all = append(all, one)
		})
		return all
	}
	mild, evil := full(query(t, "filter=web-1&identity=web"), 3), full(query(t, "filter=web-1&identity=web"), 3)
	setTexts(reflect.ValueOf(evil).Elem())
	evil.Sessions.Query.Sort = "identity" // ParseQuery lets no other text through
	_, of := pageOf(t, mild)
	text, as := pageOf(t, evil)
	got, want := shape(as), shape(of)
	if len(got) != len(want) {
		t.Errorf("got %d elements, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("element %d is %q, want %q", i, got[i], want[i])
		}
	}
	for _, part := range []string{"<script>alert", "<img src=x", "onerror=alert(1)>'"} {
		if strings.Contains(text, part) {
			t.Errorf("the page has %q", part)
		}
	}
	each(as, func(n *html.Node) {
		if link := attribute(n, "href"); strings.HasPrefix(link, "javascript:") {
			t.Errorf("a link to %q", link)
		}
	})
	if !strings.Contains(words(byID(t, as, "sessions")), "<script>alert(1)</script>") {
		t.Error("the text is not shown as it is")
	}
}

// The page is whole in itself: its policy lets run what is in it, nothing else is loaded, and nothing in it is against its policy.
func TestPageKeepsToItsPolicy(t *testing.T) {
	_, root := pageOf(t, full(query(t, ""), 3))
	inside := 0
	each(root, func(n *html.Node) {
		switch n.Data {
		case "style", "script":
			inside++
			sum := sha256.Sum256([]byte(n.FirstChild.Data))
			if want := n.Data + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(Policy(), want) {
				t.Errorf("the policy %s lacks %s", Policy(), want)
			}
		case "img", "iframe", "object", "embed", "base":
			t.Errorf("there is a %s", n.Data)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "src" || strings.Contains(a.Val, "//") && a.Key != "href" {
				t.Errorf("%s has %s=%q", n.Data, a.Key, a.Val)
			}
			if a.Key == "href" && (strings.Contains(a.Val, ":") && a.Val != "data:,") {
				t.Errorf("%s leads to %q", n.Data, a.Val)
			}
		}
	})
	if inside != 2 || !strings.HasPrefix(Policy(), "default-src 'none'; ") || strings.Contains(Policy(), "unsafe") {
		t.Errorf("%d styles and scripts, policy %s", inside, Policy())
	}
}

// Ten years are more nanoseconds than a hundredth of an int64 holds.
func TestBarsOfValidity(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		valid, left time.Duration
		want        bar
	}{
		{3650 * day, 3649 * day, bar{99, "good"}}, {90 * day, 45 * day, bar{50, "good"}}, {90 * day, 29 * day, bar{32, "fair"}},
		{90 * day, 13 * day, bar{14, "fair"}}, {90 * day, 2 * day, bar{2, "bad"}}, {90 * day, -day, bar{0, "bad"}},
		{day, 12 * time.Hour, bar{50, "good"}}, {day, 2 * time.Hour, bar{8, "bad"}},
	} {
		if got := lifeBar(at, at.Add(c.left-c.valid), at.Add(c.left)); got != c.want {
			t.Errorf("%v of %v: got %+v, want %+v", c.left, c.valid, got, c.want)
		}
	}
}

func TestChartsLeaveGaps(t *testing.T) {
	one, two := .001, .002
	s := Series{P99: map[string][]*float64{"own": {&one, nil, &two}}}
	all := charts(&s)
	last := all[len(all)-1]
	if last.Most != "2 ms" || len(last.Lines) != 1 || last.Lines[0].Now != "2 ms" {
		t.Fatalf("got %+v", last)
	}
	if path := last.Lines[0].Path; path != "M296.6 30.0M300.0 0.0" {
		t.Errorf("got %q", path)
	}
}

// The figures are those of a page with 10,000 sessions, the list of the proxy aside.
func BenchmarkStatusOf10000Sessions(b *testing.B) {
	for name, write := range map[string]func(*Status) error{
		"page": func(s *Status) error { return WritePage(io.Discard, s) },
		"json": func(s *Status) error { return json.NewEncoder(io.Discard).Encode(s) },
	} {
		for _, of := range []string{"filter=web-1&sort=-commands", "limit=1000", "limit=10000"} {
			b.Run(name+" "+of, func(b *testing.B) {
				s := full(query(b, ""), 10000)
				all, q := sessions(10000), query(b, of)
				for b.Loop() {
					s.Sessions = q.Select(slices.Clone(all))
					if err := write(s); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
