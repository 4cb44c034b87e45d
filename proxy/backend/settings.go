package backend

import "time"

// Settings are what may change while dials are made, see Change. They are part of Config.
type Settings struct {
	ConnectTimeout time.Duration // for one dial, with the introduction; 2 s
	WriteTimeout   time.Duration // a connection breaks 30 s after a write has waited for so long; 0: never
	MaxConnections int           // open at the same time, the prober's aside; 0: no limit
}

// Change changes the settings, for dials that begin. Those that wait for a place get what a higher limit frees; a lower one closes
// no connection.
func (b *Backend) Change(s Settings) {
	if s.ConnectTimeout <= 0 {
		s.ConnectTimeout = 2 * time.Second
	}
	b.settings.Store(&s)
	b.room.setMost(s.MaxConnections)
}

func (b *Backend) connectTimeout() time.Duration { return b.settings.Load().ConnectTimeout }

// writeTimeout of a connection: a backend that stops for a while costs waiting, no session.
func (b *Backend) writeTimeout() time.Duration {
	t := b.settings.Load().WriteTimeout
	if t > 0 {
		t += 30 * time.Second
	}
	return t
}
