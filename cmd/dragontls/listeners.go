package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"dragontls/config"
	"dragontls/proxy"
)

// adminSocket is the name (FileDescriptorName) of an inherited socket that is the admin listener.
const adminSocket = "admin"

// inherited are the listeners that the service manager has opened (LISTEN_FDS, see sd_listen_fds(3)). They win over LISTEN and
// ADMIN_LISTEN.
type inherited struct {
	clients, admin net.Listener // nil: to be opened
}

// inheritedListeners takes over the sockets of LISTEN_FDS and removes the variables, so that no child takes them again.
func inheritedListeners() (inherited, error) {
	var given inherited
	var faults []error
	for _, f := range activation.Files(true) {
		kind := &given.clients
		if f.Name() == adminSocket {
			kind = &given.admin
		}
		l, err := net.FileListener(f)
		f.Close()
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("%s is no stream socket that listens: %w", f.Name(), err))
		case *kind != nil:
			faults = append(faults, fmt.Errorf("%s and %s are for the same listener", (*kind).Addr(), l.Addr()))
			l.Close()
		default:
			*kind = l
		}
	}
	if len(faults) > 0 {
		return given, &listenError{"LISTEN_FDS", errors.Join(faults...), "give one socket for clients, and at most one with FileDescriptorName=" + adminSocket}
	}
	return given, nil
}

// clientListener opens the listener of the clients, or takes over the inherited one.
func (s *service) clientListener(given net.Listener) (*proxy.Listener, error) {
	if given != nil {
		l, err := proxy.Inherit(given)
		if err != nil {
			return nil, &listenError{"LISTEN_FDS", err, "use ListenStream= with a port"}
		}
		return l, nil
	}
	served := proxy.IsServed(s.c.Listen)
	if served && !s.c.TakeOver {
		return nil, notListening(fmt.Errorf("listen tcp %s: %w", s.c.Listen, syscall.EADDRINUSE))
	}
	l, err := proxy.Listen(s.c.Listen, s.c.KeepAlive, s.c.WriteTimeout)
	if err != nil {
		return nil, notListening(err)
	}
	if served {
		s.log.Info().Str("address", s.c.Listen).Msg("another process listens on this address: new clients go to either, until it is told to stop")
	}
	return l, nil
}

// notListening returns the fault of LISTEN, with its cure.
func notListening(err error) error {
	return &listenError{config.Prefix + "LISTEN", err,
		"set DRAGONTLS_LISTEN to an address that is free, or DRAGONTLS_TAKE_OVER=true to take over from another dragontls of this user that listens there"}
}
