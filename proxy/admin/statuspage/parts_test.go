package statuspage

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQueryFaultsSayWhatIsAccepted(t *testing.T) {
	for text, want := range map[string]string{
		"sort=x":      "sort: one of address, age, commands,",
		"sort=--age":  "sort: one of",
		"page=0":      "page: a number from 1 to",
		"page=x":      "page: a number",
		"limit=10001": "limit: a number from 1 to 10000",
		"limit=-1":    "limit: a number",
	} {
		v, _ := url.ParseQuery(text)
		if _, err := ParseQuery(v); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestQueryIsReadFromItsValues(t *testing.T) {
	for _, text := range []string{"", "sort=-age", "filter=a%26b&identity=x&limit=7&page=3&sort=commands"} {
		if got := query(t, text).Values().Encode(); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func ids(s Sessions) (all []uint64) {
	for _, n := range s.List {
		all = append(all, n.ID)
	}
	return all
}

func TestSessionsAreFilteredSortedAndPaged(t *testing.T) {
	for text, want := range map[string]struct {
		matched, page, pages int
		ids                  []uint64
	}{
		"limit=3":                           {10, 1, 4, []uint64{1, 2, 3}},
		"limit=3&page=4":                    {10, 4, 4, []uint64{10}},
		"limit=3&page=99":                   {10, 4, 4, []uint64{10}},
		"limit=2&sort=-commands":            {10, 1, 5, []uint64{10, 9}},
		"limit=2&sort=age":                  {10, 1, 5, []uint64{1, 2}},
		"limit=2&sort=-not_after":           {10, 1, 5, []uint64{10, 9}},
		"sort=-in_flight&limit=6":           {10, 1, 2, []uint64{2, 4, 6, 8, 10, 1}},
		"identity=WEB-3":                    {1, 1, 1, []uint64{4}},
		"identity=example":                  {0, 1, 1, nil}, // that is in the subject
		"filter=example&limit=1":            {10, 1, 10, []uint64{1}},
		"filter=10.0.0.7:":                  {1, 1, 1, []uint64{8}},
		"filter=REDIS-PY&identity=web-9":    {1, 1, 1, []uint64{10}},
		"filter=nobody":                     {0, 1, 1, nil},
		"filter=00000000000000000000000005": {1, 1, 1, []uint64{6}},
	} {
		got := query(t, text).Select(sessions(10))
		if got.Total != 10 || got.Matched != want.matched || got.Page != want.page || got.Pages != want.pages || !slices.Equal(ids(got), want.ids) {
			t.Errorf("%s: got %d of %d, page %d of %d, %v", text, got.Matched, got.Total, got.Page, got.Pages, ids(got))
		}
	}
}

// Each column sorts by what it shows, in both directions.
func TestEveryColumnSorts(t *testing.T) {
	all := sessions(2)
	b := &all[1]
	*b = Session{2, "v", "v", "v", nil, "v", "v", "v", "v", "v", at.Add(-time.Hour), 9, 9, "v", 9}
	all[0] = Session{1, "a", "a", "a", &at, "a", "a", "a", "a", "a", at, 1, 1, "a", 1}
	for _, key := range SortKeys() {
		if got := ids(query(t, "sort="+key).Select(slices.Clone(all))); !slices.Equal(got, []uint64{1, 2}) {
			t.Errorf("%s: got %v", key, got)
		}
		if got := ids(query(t, "sort=-"+key).Select(slices.Clone(all))); !slices.Equal(got, []uint64{2, 1}) {
			t.Errorf("-%s: got %v", key, got)
		}
	}
	for _, c := range columns {
		if sortKeys[c.key] == nil {
			t.Errorf("the column %s does not sort", c.title)
		}
	}
}

func TestEventsAreBoundedAndCounted(t *testing.T) {
	var k Events
	for i := range maxEvents + 10 {
		k.Add(Event{Kind: EventRefused, Reason: "timeout", Address: fmt.Sprint(i), Last: at.Add(time.Duration(i) * time.Second)})
	}
	all := k.Latest()
	if len(all) != maxEvents || all[0].Address != fmt.Sprint(maxEvents+9) || all[maxEvents-1].Address != "10" || all[0].Count != 1 {
		t.Fatalf("got %d, from %+v to %+v", len(all), all[0], all[len(all)-1])
	}
	later := at.Add(time.Hour)
	k.Add(Event{Kind: EventRefused, Reason: "timeout", Address: "20", Last: later})
	all = k.Latest()
	if got := all[0]; len(all) != maxEvents || got.Address != "20" || got.Count != 2 || got.Last != later || got.First != at.Add(20*time.Second) {
		t.Errorf("got %d, the first is %+v", len(all), got)
	}
	k.Add(Event{Kind: EventClosed, Reason: "timeout", Address: "20", Last: later}) // another kind
	if got := k.Latest()[0]; got.Count != 1 || got.Kind != EventClosed {
		t.Errorf("got %+v", got)
	}
}

// counted is a sample i seconds after the first: 10 commands a second over lanes, each of which took less than 1 ms, but for a hundredth
// that took more than 1 s.
func counted(i int) Sample {
	n := uint64(i)
	return Sample{Time: at.Add(time.Duration(i) * time.Second), Connections: i, Commands: 10 * n, Handshakes: 2 * n, Refused: n, BytesIn: 100 * n, BytesOut: 1000 * n,
		Seconds: map[string]Durations{"lane": {Bounds: []float64{.001, .1, 1}, Counts: []uint64{990 * n, 0, 0, 10 * n}}, "own": {Bounds: []float64{.001, .1, 1}, Counts: make([]uint64, 4)}}}
}

func TestHistoryTellsRatesAndLatency(t *testing.T) {
	var h History
	var none Traffic
	h.Fill(&none)
	if none.Rates != nil || len(none.Latency) != 0 || len(none.History.Commands) != 0 {
		t.Errorf("without a sample: %+v", none)
	}
	for i := range 4 {
		h.Add(counted(i * 5))
	}
	var got Traffic
	h.Fill(&got)
	if *got.Rates != (Rates{10, 2, 1, 100, 1000}) {
		t.Errorf("got %+v", *got.Rates)
	}
	if len(got.Latency) != 1 { // nothing went over own connections
		t.Fatalf("got %+v", got.Latency)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	if l := got.Latency[0]; l.Path != "lane" || l.Commands != 15000 || !near(l.P50, .5/.99*.001) || !near(l.P99, .001) || l.P999 != 1 {
		t.Errorf("got %+v", l)
	}
	s := got.History
	if s.IntervalSeconds != 5 || s.End != at.Add(15*time.Second) || !slices.Equal(s.Connections, []int{5, 10, 15}) || !slices.Equal(s.Commands, []float64{10, 10, 10}) ||
		!slices.Equal(s.Handshakes, []float64{2, 2, 2}) || !slices.Equal(s.Refused, []float64{1, 1, 1}) {
		t.Errorf("got %+v", s)
	}
	if lane, own := s.P99["lane"], s.P99["own"]; len(lane) != 3 || lane[2] == nil || !near(*lane[2], .001) || len(own) != 3 || own[2] != nil {
		t.Errorf("got %v and %v", lane, own)
	}
}

// Only the last minute counts for the latency, and only 15 minutes are kept.
func TestHistoryForgets(t *testing.T) {
	var h History
	for i := range 1000 {
		s := counted(i * 5)
		if i >= 900 { // from here on, every command is slow
			s.Seconds["lane"] = Durations{Bounds: []float64{.001, .1, 1}, Counts: []uint64{990 * 4500, 10 * uint64(i), 0, 0}}
		}
		h.Add(s)
	}
	var got Traffic
	h.Fill(&got)
	if n := len(got.History.Commands); n != maxSamples || len(h.points) != maxSamples || len(h.last) != latencySamples+1 {
		t.Errorf("%d points, %d samples", n, len(h.last))
	}
	if l := got.Latency[0]; l.Commands != uint64(10*latencySamples) || l.P50 < .001 || l.P50 > .1 {
		t.Errorf("got %+v", l)
	}
}
