//go:build !linux

package proxy

// restWatcher needs epoll: elsewhere no session rests.
type restWatcher struct{}

func newRestWatcher() *restWatcher     { return nil }
func (*restWatcher) add(*session) bool { return false }
func (*restWatcher) remove(*session)   {}
func (*restWatcher) watch()            {}
func (*restWatcher) close()            {}
