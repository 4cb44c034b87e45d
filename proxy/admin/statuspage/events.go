package statuspage

import (
	"slices"
	"sync"
	"time"
)

// maxEvents are kept.
const maxEvents = 50

// The values of Event.Kind.
const (
	EventRefused = "refused"       // a handshake, or a socket before it
	EventClosed  = "closed"        // a session, for a reason other than that its client was done
	EventReload  = "reload_failed" // a source of files was held back
)

// Event is something that an operator may want to know of. The same thing about the same client is one event, which counts.
type Event struct {
	Kind    string    `json:"kind"`
	Reason  string    `json:"reason"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Count   uint64    `json:"count"`
	Address string    `json:"address,omitempty"` // of the client, without the port
	Client  string    `json:"client,omitempty"`
	Serial  string    `json:"serial,omitempty"`
	File    string    `json:"file,omitempty"`
	Error   string    `json:"error,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Cure    string    `json:"cure,omitempty"`
}

func (e *Event) isLike(other *Event) bool {
	return e.Kind == other.Kind && e.Reason == other.Reason && e.Address == other.Address && e.Client == other.Client && e.File == other.File
}

// Events keeps the latest events. The zero value is empty. Safe for concurrent use.
type Events struct {
	mu  sync.Mutex
	all []Event // the latest last; guarded by mu
}

// Add takes an event that has just happened. Its First and Count are set here.
func (k *Events) Add(e Event) {
	e.First, e.Count = e.Last, 1
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.all {
		if old := &k.all[i]; old.isLike(&e) {
			e.First, e.Count = old.First, old.Count+1
			k.all = slices.Delete(k.all, i, i+1)
			break
		}
	}
	if len(k.all) == maxEvents {
		k.all = slices.Delete(k.all, 0, 1)
	}
	k.all = append(k.all, e)
}

// Latest returns a copy, the latest first.
func (k *Events) Latest() []Event {
	k.mu.Lock()
	all := append([]Event{}, k.all...)
	k.mu.Unlock()
	slices.Reverse(all)
	return all
}
