package config

import (
	"fmt"
	"math"
)

// machine is what the settings must fit.
type machine struct {
	descriptors uint64 // soft limit of open files; 0: unknown
	memory      int64  // bytes this process may use; 0: unknown
}

const (
	// reservedDescriptors are for listeners, files, logs and the admin's clients.
	reservedDescriptors = 64
	// unknownMemory is assumed where nothing says how much there is.
	unknownMemory = 1 << 30
	minMemory     = 16 << 20
	// fewHandshakes is the default of MAX_HANDSHAKES where MAX_CONNECTIONS is not larger.
	fewHandshakes = 1000
)

// What MEMORY_LIMIT is for, in eighths. The rest is for the runtime, for what dragontls itself needs and for garbage.
const (
	clientEighths    = 5 // sessions, and what clients make dragontls hold
	sessionEighths   = 4 // of which sessions that hold nothing may take so much
	handshakeEighths = 1
)

const (
	// HandshakeMemory is what a socket costs at most before its handshake is finished.
	HandshakeMemory = 64 << 10
	// SessionMemory is what a session costs that holds nothing, with the two connections to the backend that it may have.
	SessionMemory = 30 << 10
	// tlsBackendMemory is added where its connection to the backend speaks TLS.
	tlsBackendMemory = 36 << 10
)

// ClientMemory is the part of MEMORY_LIMIT for sessions and all that clients make dragontls hold, in bytes. What
// handshakes need is set aside beside it.
func (c *Config) ClientMemory() int64 { return int64(c.MemoryLimit) / 8 * clientEighths }

// fitDescriptors lowers defaults that do not fit the limit of open files and refuses explicit values that do not.
func (l *loader) fitDescriptors() {
	c := &l.config
	if l.faulty["MAX_CONNECTIONS"] || l.faulty["MAX_HANDSHAKES"] || l.faulty["BACKEND_MAX_CONNECTIONS"] {
		return
	}
	backend := int64(2 * c.MaxConnections)
	if l.machine.descriptors == 0 {
		l.raiseHandshakes(math.MaxInt64)
	}
	if l.machine.descriptors > 0 {
		limit := int64(min(l.machine.descriptors, 1<<40))
		if !l.fitHandshakes(limit) {
			return
		}
		room := limit - reservedDescriptors - int64(c.MaxHandshakes)
		l.fitSessions(limit, room)
		backend = min(backend, room-int64(c.MaxConnections))
	}
	if c.BackendMaxConnections == 0 {
		c.BackendMaxConnections = int(max(1, backend))
	}
}

// raiseHandshakes raises the default of MAX_HANDSHAKES to MAX_CONNECTIONS, as far as limit and the memory for handshakes allow.
func (l *loader) raiseHandshakes(limit int64) {
	c := &l.config
	if l.explicit["MAX_HANDSHAKES"] {
		return
	}
	fit := int64(c.MemoryLimit) / 8 * handshakeEighths / HandshakeMemory
	c.MaxHandshakes = max(c.MaxHandshakes, int(min(limit, fit, int64(c.MaxConnections))))
}

// leftForHandshakes returns how many of limit descriptors MAX_HANDSHAKES may take where it is not set: as many as MAX_CONNECTIONS
// sessions leave, each with one connection to the backend, up to BACKEND_MAX_CONNECTIONS of these. Where MAX_CONNECTIONS is not
// set either, it may be lowered until there are as many sessions as handshakes.
func (l *loader) leftForHandshakes(limit int64) int64 {
	c := &l.config
	room := limit - reservedDescriptors
	sessions, backend := int64(c.MaxConnections), int64(c.BackendMaxConnections)
	left, even := room-2*sessions, room/3
	if backend > 0 {
		left, even = max(left, room-sessions-backend), max(even, (room-backend)/2)
	}
	if l.explicit["MAX_CONNECTIONS"] {
		return left
	}
	return max(left, even)
}

// fitHandshakes lowers or raises the default of MAX_HANDSHAKES to what the limit of open files allows. It reports whether there is a
// descriptor left for a session and one for its connection to the backend.
func (l *loader) fitHandshakes(limit int64) bool {
	c := &l.config
	if !l.explicit["MAX_HANDSHAKES"] {
		before := c.MaxHandshakes
		c.MaxHandshakes = min(before, int(max(1, limit/4)))
		left := l.leftForHandshakes(limit)
		l.raiseHandshakes(left)
		c.MaxHandshakes = int(max(1, min(int64(c.MaxHandshakes), left)))
		if c.MaxHandshakes < before {
			l.note(NoteDescriptors, "MAX_HANDSHAKES", "lowered from %d to %d: the limit of open files is %d", before, c.MaxHandshakes, limit)
		}
	}
	if limit-reservedDescriptors-int64(c.MaxHandshakes) >= 2 {
		return true
	}
	raise := fmt.Sprintf("raise the limit to %d", l.enoughDescriptors())
	if l.explicit["MAX_HANDSHAKES"] {
		l.refuse("MAX_HANDSHAKES", fmt.Sprintf("leaves no descriptor for a session under a limit of %d open files", limit), "lower it, or "+raise)
	} else {
		l.refuse("MAX_CONNECTIONS", fmt.Sprintf("not even one session fits a limit of %d open files", limit), raise)
	}
	return false
}

// fitSessions: each session needs a descriptor, and one more for a connection to the backend of its own, up to
// BACKEND_MAX_CONNECTIONS in all. room is what is left for both under the limit of open files.
func (l *loader) fitSessions(limit, room int64) {
	c := &l.config
	most := int64(c.BackendMaxConnections) // 0: as many as there are sessions, and lanes in their place
	fit := room / 2
	if most > 0 {
		fit = max(fit, room-most)
	}
	switch sessions := int64(c.MaxConnections); {
	case sessions <= fit:
	case l.explicit["MAX_CONNECTIONS"]:
		l.refuse("MAX_CONNECTIONS", fmt.Sprintf("at most %d under a limit of %d open files", fit, limit),
			fmt.Sprintf("lower it, or raise the limit to %d", l.enoughDescriptors()))
	default:
		l.note(NoteDescriptors, "MAX_CONNECTIONS", "lowered from %d to %d: the limit of open files is %d", sessions, fit, limit)
		c.MaxConnections = int(fit)
	}
}

// enoughDescriptors returns a limit of open files that is enough for what is set: MAX_CONNECTIONS, or one session, with their
// connections to the backend, and MAX_HANDSHAKES, or a quarter of the limit up to fewHandshakes.
func (l *loader) enoughDescriptors() int64 {
	c := &l.config
	sessions := int64(1)
	if l.explicit["MAX_CONNECTIONS"] {
		sessions = int64(c.MaxConnections)
	}
	need := 2 * sessions
	if most := int64(c.BackendMaxConnections); most > 0 {
		need = min(need, sessions+most)
	}
	need += reservedDescriptors
	if l.explicit["MAX_HANDSHAKES"] {
		return need + int64(c.MaxHandshakes)
	}
	return need + min(need/3, fewHandshakes)
}

func (l *loader) fitMemory() {
	c := &l.config
	if l.faulty["MEMORY_LIMIT"] {
		return
	}
	if c.MemoryLimit == 0 {
		memory := l.machine.memory
		if memory <= 0 {
			memory = unknownMemory
			l.note(NoteMemory, "", "memory of this machine is unknown: %sMEMORY_LIMIT is half of %s", Prefix, Size(memory))
		}
		c.MemoryLimit = Size(max(memory/2, minMemory))
	}
	if c.MemoryLimit < minMemory {
		l.refuse("MEMORY_LIMIT", "0, or at least "+Size(minMemory).String(), "")
		return
	}
	l.fitInto("MAX_HANDSHAKES", &c.MaxHandshakes, HandshakeMemory, handshakeEighths)
	session := int64(SessionMemory)
	if c.Backend.TLS {
		session += tlsBackendMemory
	}
	l.fitInto("MAX_CONNECTIONS", &c.MaxConnections, session, sessionEighths)
}

// fitInto lowers the default of a limit to what a part of MEMORY_LIMIT has room for, and refuses an explicit value above
// that. A limit that is only assumed, because nobody knows how much memory there is, refuses nothing.
func (l *loader) fitInto(name string, limit *int, each, eighths int64) {
	memory := l.config.MemoryLimit
	fit := int64(memory) / 8 * eighths / each
	switch {
	case l.faulty[name] || int64(*limit) <= fit:
	case !l.explicit[name]:
		l.note(NoteMemory, name, "lowered from %d to %d: %sMEMORY_LIMIT is %s", *limit, fit, Prefix, memory)
		*limit = int(fit)
	case l.explicit["MEMORY_LIMIT"] || l.machine.memory > 0:
		l.refuse(name, fmt.Sprintf("at most %d with a MEMORY_LIMIT of %s", fit, memory),
			fmt.Sprintf("lower it, or raise MEMORY_LIMIT to %s", Size((int64(*limit)*each*8/eighths+1<<20-1)>>20<<20)))
	}
}
