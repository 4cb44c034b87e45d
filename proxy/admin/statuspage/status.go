// Package statuspage is what the admin listener shows people and scripts of a running dragontls: Status as JSON and as a web page, the
// samples of the last 15 minutes, and the latest events. It knows neither the proxy nor the certificates: cmd/dragontls fills it in.
package statuspage

import "time"

// Schema is the version of Status. It grows when a field is removed or changes its meaning; new fields do not change it.
const Schema = 1

// Status is what /status.json says, and what the page shows. Its fields are documented in config/docs/status.md.
type Status struct {
	About
	Health
	Traffic
	Ends
	Trusted
	Backend  Backend  `json:"backend"`
	Limits   []Limit  `json:"limits"`
	Sessions Sessions `json:"sessions"`
}

// About says what runs.
type About struct {
	Schema        int       `json:"schema"`
	Version       string    `json:"version"`
	Go            string    `json:"go"`
	Time          time.Time `json:"time"`
	UptimeSeconds int64     `json:"uptime_seconds"`
}

// Health says whether all is well, and what to do where it is not.
type Health struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why it is not ready, in a word
	Detail string `json:"detail,omitempty"`
	// Problems are the gravest first.
	Problems []Problem `json:"problems"`
}

// The values of Problem.Severity.
const (
	SeverityError   = "error"   // clients are refused, or are about to be
	SeverityWarning = "warning" // somebody should act
	SeverityNote    = "note"    // a reminder
)

// Problem is one thing that is not as it should be.
type Problem struct {
	Severity string `json:"severity"`
	What     string `json:"what"`
	Cure     string `json:"cure,omitempty"`
}

// Traffic says how much is going on.
type Traffic struct {
	Connections Connections `json:"connections"`
	Rates       *Rates      `json:"rates"`
	Latency     []Latency   `json:"latency"`
	History     Series      `json:"history"`
}

// Connections counts the connections of clients.
type Connections struct {
	Open        int `json:"open"`
	Handshaking int `json:"handshaking"`
}

// Rates are per second, in the interval that the last sample ended.
type Rates struct {
	Commands   float64 `json:"commands"`
	Handshakes float64 `json:"handshakes"`
	Refused    float64 `json:"refused"`
	BytesIn    float64 `json:"bytes_in"`
	BytesOut   float64 `json:"bytes_out"`
}

// Latency says how long the commands of the last minute took that went one way. It is absent where there was none.
type Latency struct {
	Path     string  `json:"path"`
	Commands uint64  `json:"commands"`
	P50      float64 `json:"p50_seconds"`
	P99      float64 `json:"p99_seconds"`
	P999     float64 `json:"p999_seconds"`
}

// Series are the samples of the last 15 minutes, the oldest first. They all have the same length.
type Series struct {
	IntervalSeconds float64               `json:"interval_seconds"`
	End             time.Time             `json:"end"` // of the last sample
	Connections     []int                 `json:"connections"`
	Commands        []float64             `json:"commands"`
	Handshakes      []float64             `json:"handshakes"`
	Refused         []float64             `json:"refused"`
	P99             map[string][]*float64 `json:"p99_seconds"` // by Latency.Path; null where there was no command
}

// Ends says what ended, and how.
type Ends struct {
	SessionsClosed map[string]uint64 `json:"sessions_closed"`
	Handshakes     []Handshake       `json:"handshakes"`
	Events         []Event           `json:"events"` // the latest first
}

// Handshake counts the handshakes with one outcome.
type Handshake struct {
	Reason  string `json:"reason"` // "ok", or why it was refused
	Version string `json:"version,omitempty"`
	Resumed bool   `json:"resumed"`
	Count   uint64 `json:"count"`
}

// Trusted says what is served and whom is trusted.
type Trusted struct {
	Certificates []Certificate     `json:"certificates"`
	CRLs         []CRL             `json:"crls"`
	Trust        Trust             `json:"trust"`
	Reloads      map[string]Reload `json:"reloads"`
}

// Certificate is one that is served or trusted.
type Certificate struct {
	Role      string    `json:"role"`
	File      string    `json:"file"`
	Subject   string    `json:"subject"`
	Serial    string    `json:"serial"`
	SHA256    string    `json:"sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  float64   `json:"days_left"`
	// Sessions, of a client CA: those whose chain ends in it.
	Sessions *int `json:"sessions,omitempty"`
}

// CRL is one that matters now, or an older one beside it.
type CRL struct {
	File       string    `json:"file"`
	Issuer     string    `json:"issuer"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	DaysLeft   float64   `json:"days_left"`
	Entries    int       `json:"entries"`
	// Current: of the lists with one signer, it holds longest.
	Current bool `json:"current"`
}

// Trust says whose certificates end when, and which are from before a change.
type Trust struct {
	// Generation grows with each change of client CAs, revoked certificates or rules.
	Generation uint64 `json:"generation"`
	// SessionsByGeneration counts open sessions by the generation of their handshake.
	SessionsByGeneration map[uint64]int `json:"sessions_by_generation"`
	// EarliestClientNotAfter is the first end of a certificate among connected clients.
	EarliestClientNotAfter *time.Time `json:"earliest_client_not_after,omitempty"`
}

// Reload says what became of reading the files of one side.
type Reload struct {
	OK          uint64            `json:"ok"`
	Unchanged   uint64            `json:"unchanged"`
	Failed      map[string]uint64 `json:"failed"`
	LastSuccess time.Time         `json:"last_success"`
	LastOK      bool              `json:"last_ok"`
	Watch       string            `json:"watch"`
	Held        []HeldSource      `json:"held"`
}

// HeldSource is a source of files that is held back: what it held before is in use.
type HeldSource struct {
	Source string    `json:"source"`
	File   string    `json:"file"`
	Reason string    `json:"reason"`
	Error  string    `json:"error"`
	Cure   string    `json:"cure,omitempty"`
	Since  time.Time `json:"since"`
}

// Backend says where the backend is and how it does.
type Backend struct {
	URL         string            `json:"url"`
	Address     string            `json:"address"`
	Up          bool              `json:"up"`
	Since       *time.Time        `json:"since,omitempty"`
	PingSeconds float64           `json:"ping_seconds,omitempty"`
	Connections int               `json:"connections"` // lanes included
	Lanes       int               `json:"lanes"`
	Errors      map[string]uint64 `json:"errors"`
}

// Limit says how full one limit is.
type Limit struct {
	Of   string `json:"of"`
	Name string `json:"name"`
	// Value is absent without a limit, or where it is not known; so is Used where it is not known.
	Value   *int64 `json:"value,omitempty"`
	Used    *int64 `json:"used,omitempty"`
	Reached uint64 `json:"reached"`
}

// Share returns how full the limit is, between 0 and 1, or a negative number where that is not known.
func (l Limit) Share() float64 {
	if l.Value == nil || l.Used == nil || *l.Value <= 0 {
		return -1
	}
	return min(1, float64(*l.Used)/float64(*l.Value))
}
