//go:build !linux

package proxy

// restWatcher needs epoll: elsewhere nothing rests.
type restWatcher struct{}

func newRestWatcher() *restWatcher       { return nil }
func (*restWatcher) add(sleeper) bool    { return false }
func (*restWatcher) remove(sleeper)      {}
func (*restWatcher) watch(func(sleeper)) {}
func (*restWatcher) close()              {}
