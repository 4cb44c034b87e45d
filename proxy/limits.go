package proxy

import (
	"dragontls/proxy/backend"
	"dragontls/proxy/limit"
	"dragontls/proxy/resp"
)

// limitID is one of the limits that the proxy can reach.
type limitID uint8

const (
	limitConnections limitID = iota // MAX_CONNECTIONS
	limitIdentity                   // MAX_CONNECTIONS_PER_IDENTITY
	limitHandshakes                 // MAX_HANDSHAKES
	limitMemory                     // MEMORY_LIMIT: the part of it for clients
	limitShare                      // MEMORY_LIMIT: what one identity may hold
	limitBackend                    // BACKEND_MAX_CONNECTIONS
	limitDescriptors                // open files
	limitMaxClients                 // the backend's maxclients
	limitCount
)

// limitTexts are what a limit is called as the label of a metric and in the log, and what the log says when it is reached.
var limitTexts = [limitCount]struct{ of, name, message string }{
	limitConnections: {"max_connections", "MAX_CONNECTIONS", "MAX_CONNECTIONS is reached: new clients are refused"},
	limitIdentity: {"max_connections_per_identity", "MAX_CONNECTIONS_PER_IDENTITY",
		"MAX_CONNECTIONS_PER_IDENTITY is reached: new connections of this client are refused"},
	limitHandshakes: {"max_handshakes", "MAX_HANDSHAKES",
		"MAX_HANDSHAKES is reached: new sockets wait for a place, and handshakes that make no progress are closed for them"},
	limitMemory: {"memory_limit", "MEMORY_LIMIT", "MEMORY_LIMIT is reached: sessions that hold most of it are closed"},
	limitShare: {"memory_limit_per_identity", "a quarter of MEMORY_LIMIT for one identity",
		"one client holds its share of MEMORY_LIMIT: its sessions that hold most are closed"},
	limitBackend: {"backend_max_connections", "BACKEND_MAX_CONNECTIONS",
		"BACKEND_MAX_CONNECTIONS is reached: commands that need a new backend connection wait until one is closed"},
	limitDescriptors: {"descriptors", "the limit of open files (ulimit -n)",
		"the limit of open files is reached: new connections wait or fail"},
	limitMaxClients: {"backend_max_clients", "the backend's maxclients", "the backend refuses some connections: its maxclients is reached"},
}

// limits are all limits, by limitID.
type limits [limitCount]*limit.Limit

// newLimits returns the limits, for setLimits to set.
func (s *Server) newLimits() (all limits) {
	for id, t := range limitTexts {
		all[id] = limit.New(limit.Options{Name: t.name, Message: t.message, Log: s.log, Now: s.now})
	}
	all[limitDescriptors].SetValue(maxDescriptors())
	return all
}

// setLimits sets the values of the limits that c names.
func (s *Server) setLimits(c *Config) {
	for id, value := range map[limitID]int64{
		limitConnections: int64(c.MaxConnections), limitIdentity: int64(c.MaxPerIdentity), limitHandshakes: int64(c.MaxHandshakes),
		limitMemory: s.buffers.LimitOf(s.buffers.All()), limitShare: s.buffers.LimitOf(nil),
		limitBackend: int64(c.Backend.MaxConnections),
	} {
		s.limits[id].SetValue(value)
	}
}

// tell logs what no line has told yet of limits that were reached. The sweeper calls it.
func (l *limits) tell() {
	for _, one := range l {
		one.Tell()
	}
}

// Limit says how full one limit is.
type Limit struct {
	Of      string // the label of a metric
	Name    string // as an operator knows it
	Value   int64  // 0: there is none, or it is not known
	Used    int64  // below 0: not known
	Reached uint64 // how often it was reached
}

// Limits returns all limits, in the same order each time. It may be called at any time.
func (s *Server) Limits() []Limit {
	used := s.usedOfLimits()
	all := make([]Limit, limitCount)
	for id, l := range s.limits {
		all[id] = Limit{limitTexts[id].of, l.Name(), l.Value(), used[id], l.Count()}
	}
	return all
}

// usedOfLimits returns how much of each limit is in use; of those for one identity, by the one that uses most.
func (s *Server) usedOfLimits() (used [limitCount]int64) {
	s.mu.Lock()
	used[limitConnections] = int64(len(s.sessions))
	for _, i := range s.identities {
		used[limitIdentity] = max(used[limitIdentity], int64(i.sessions))
	}
	s.mu.Unlock()
	used[limitHandshakes] = int64(s.pending.len())
	used[limitMemory], used[limitShare] = s.buffers.Total(), s.buffers.MostHeld()
	used[limitBackend] = int64(s.backend.Stats().Connections)
	used[limitDescriptors] = openDescriptors()
	used[limitMaxClients] = -1
	return used
}

// backendLimits are those that dials can reach.
func (l *limits) backendLimits() backend.Limits {
	return backend.Limits{Connections: l[limitBackend], Descriptors: l[limitDescriptors], Clients: l[limitMaxClients]}
}

// What a client is told before it is closed because a limit is reached.
var (
	textFull         = resp.AppendError(nil, "ERR dragontls: the proxy has its most connections (MAX_CONNECTIONS)")
	textIdentityFull = resp.AppendError(nil, "ERR dragontls: this client has its most connections (MAX_CONNECTIONS_PER_IDENTITY)")
)
