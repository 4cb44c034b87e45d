package admin

import (
	"log"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

const prefix = "dragontls_"

// maxScrapes is how many scrapes gather at a time; others wait for them. One Prometheus scrapes once in seconds.
const maxScrapes = 4

// scrapeTimeout includes the wait for other scrapes. It leaves half of answerTimeout to send the answer.
const scrapeTimeout = answerTimeout / 2

// Kind is what a Metric is.
type Kind int

const (
	Counter Kind = iota
	Gauge
	HistogramKind
)

// Label is one dimension of a Metric. Values must come from a bounded set.
type Label struct{ Name, Value string }

// Metric is one sample. All samples of a name have the same Help and Kind.
type Metric struct {
	Name      string // dragontls_ is put in front where it is missing
	Help      string
	Kind      Kind
	Labels    []Label
	Value     float64    // of a Counter or Gauge
	Histogram *Histogram // of a HistogramKind
}

// Histogram holds a distribution in base units.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64 // cumulative, by upper bound; +Inf is Count
}

func newMetricsHandler(o Options) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Collect != nil {
		r.MustRegister(collector{o.Collect, o.Log})
	}
	h := promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:      log.New(errorLog{o.Log}, "", 0),
		ErrorHandling: promhttp.ContinueOnError, // one bad sample does not hide the others
	})
	// The client gets nothing before its scrape is over, and so cannot keep others waiting.
	return http.TimeoutHandler(inTurn(h, maxScrapes), scrapeTimeout, textScrapeTimeout)
}

// inTurn serves at most places requests at a time. The others wait, as long as their clients do: to refuse them would let
// any flood of requests take the page from its honest readers. The places of the listener bound how many wait.
func inTurn(next http.Handler, places int) http.Handler {
	taken := make(chan struct{}, places)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case taken <- struct{}{}:
			defer func() { <-taken }()
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// collector asks for our metrics at each scrape. It describes none beforehand,
// which Prometheus calls unchecked.
type collector struct {
	collect func(emit func(Metric))
	log     zerolog.Logger
}

func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(out chan<- prometheus.Metric) {
	// The registry runs this in a goroutine of its own, where a panic ends the process.
	defer func() {
		if v := recover(); v != nil {
			c.log.Error().Interface("panic", v).Msg("collecting metrics")
		}
	}()
	seen := map[string]float64{}
	c.collect(func(m Metric) {
		if !strings.HasPrefix(m.Name, prefix) {
			m.Name = prefix + m.Name
		}
		m.Labels = slices.Clone(m.Labels) // the caller may share it
		slices.SortFunc(m.Labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
		// The registry fails a scrape with the same sample twice: the first counts.
		id := identify(m)
		if first, twice := seen[id]; twice {
			if first != m.Value {
				c.log.Error().Str("metric", m.Name).Msg("metric left out: another value has the same labels")
			}
			return
		}
		seen[id] = m.Value
		sample, err := constant(m)
		if err != nil {
			c.log.Error().Err(err).Str("metric", m.Name).Msg("metric left out")
			return
		}
		out <- sample
	})
}

// identify is unique: no name or value that Prometheus accepts contains 0xff.
func identify(m Metric) string {
	var b strings.Builder
	b.WriteString(m.Name)
	for _, l := range m.Labels {
		b.WriteString("\xff" + l.Name + "\xff" + l.Value)
	}
	return b.String()
}

func constant(m Metric) (prometheus.Metric, error) {
	names, values := make([]string, len(m.Labels)), make([]string, len(m.Labels))
	for i, l := range m.Labels {
		names[i], values[i] = l.Name, l.Value
	}
	desc := prometheus.NewDesc(m.Name, m.Help, names, nil)
	switch m.Kind {
	case HistogramKind:
		h := m.Histogram
		if h == nil {
			h = &Histogram{}
		}
		return prometheus.NewConstHistogram(desc, h.Count, h.Sum, h.Buckets, values...)
	case Gauge:
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, m.Value, values...)
	default:
		return prometheus.NewConstMetric(desc, prometheus.CounterValue, m.Value, values...)
	}
}
