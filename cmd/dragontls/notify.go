package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyTimeout is how long the service manager has to take a message. Neither a reload nor a shutdown waits longer for it.
const notifyTimeout = time.Second

var errNotifyTimeout = errors.New("it takes no message")

// notify tells the service manager the state of this process (sd_notify(3)). It does nothing without NOTIFY_SOCKET.
func (s *service) notify(state string) {
	timeout := time.NewTimer(notifyTimeout)
	defer timeout.Stop()
	var err error
	select {
	case s.notifying <- struct{}{}:
		sent := make(chan error, 1)
		go func() { // ends when the manager has taken the message: nobody waits for it, and only one such goroutine exists
			_, err := daemon.SdNotify(false, state)
			<-s.notifying
			sent <- err
		}()
		select {
		case err = <-sent:
		case <-timeout.C:
			err = errNotifyTimeout
		}
	case <-timeout.C:
		err = errNotifyTimeout
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("the service manager cannot be notified")
	}
}

// notifyReloading says that a reload begins. The time is that of the monotonic clock, as Type=notify-reload demands.
func (s *service) notifyReloading() {
	if now, ok := monotonicMicroseconds(); ok {
		s.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now))
	}
}

// feedWatchdog tells the service manager twice in each of its intervals (WatchdogSec) that this process works: that the server's
// lock can be taken, without which no client gets in. It ends with ctx, and at once if there is no watchdog.
func (s *service) feedWatchdog(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	t := time.NewTicker(interval / 2)
	defer t.Stop()
	for {
		s.server.Stats()
		s.notify(daemon.SdNotifyWatchdog)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
