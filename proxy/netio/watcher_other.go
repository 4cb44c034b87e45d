//go:build unix && !linux

package netio

// Watcher needs epoll, which only Linux has: here NewWatcher returns nil.
type Watcher[T comparable] struct{}

func NewWatcher[T comparable]() *Watcher[T] { return nil }
func (*Watcher[T]) Add(s *Socket, x T) bool { return false }
func (*Watcher[T]) Remove(s *Socket, x T)   {}
func (*Watcher[T]) Watch(wake func(x T))    {}
func (*Watcher[T]) Close()                  {}
