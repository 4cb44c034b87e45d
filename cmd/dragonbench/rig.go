package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

var errCannotReload = errors.New("cannot take a new certificate while it runs")

// rig is what all measurements share: the certificates, the backend's program and the peers that were found.
type rig struct {
	keeper       *keeper
	dir          string // its own, in that of the keeper
	backend      backendProgram
	backendIs    string // name and version
	dragontlsBin string // "": build it
	authority    *authority
	descriptors  uint64
	peers        []found
	missing      []missing
	sites        int
	shared       *backend // in clear, for all proxies
}

// newRig starts a backend. The caller must call close, also if newRig fails.
func newRig(ctx context.Context, k *keeper, backend backendProgram) (r *rig, err error) {
	r = &rig{keeper: k, backend: backend, dragontlsBin: os.Getenv("DRAGONTLS_BIN")}
	if r.dir, err = os.MkdirTemp(k.dir, "rig"); err != nil {
		return nil, err
	}
	if r.descriptors, err = raiseDescriptors(); err != nil {
		return nil, err
	}
	if r.authority, err = newAuthority(filepath.Join(r.dir, "pki")); err != nil {
		return nil, err
	}
	program, err := r.backendFound(ctx)
	if err != nil {
		return nil, err
	}
	r.backendIs = program.version
	r.shared, err = r.startBackend(ctx, "", nil)
	return r, err
}

// close stops the shared backend. What is left of the rig ends with the keeper.
func (r *rig) close() {
	if r != nil && r.shared != nil {
		r.shared.stop()
	}
}

// instance is a running peer with its backend.
type instance struct {
	found
	site      site
	authority *authority
	proxy     *process // nil if the backend is measured alone
	backend   *backend
	owned     bool // backend ends with the instance
	address   string
	reloads   int
}

// startOptions are what differs from an instance of the shared backend and certificates.
type startOptions struct {
	ownBackend bool
	ownFiles   bool // a PKI of its own, to rotate
	clients    int  // so many must fit; fewer than usualClients always do
}

// start starts a peer and waits until it answers.
func (r *rig) start(ctx context.Context, f found, o startOptions) (i *instance, err error) {
	i = &instance{found: f, authority: r.authority}
	defer func() {
		if err != nil {
			i.stop()
		}
	}()
	r.sites++
	i.site.dir = filepath.Join(r.dir, fmt.Sprintf("site%d", r.sites))
	if err := os.Mkdir(i.site.dir, 0o700); err != nil {
		return i, err
	}
	if o.ownFiles {
		if i.authority, err = newAuthority(filepath.Join(i.site.dir, "pki")); err != nil {
			return i, err
		}
	}
	i.site.files = i.authority.files
	i.site.clients = max(usualClients, o.clients)
	if f.command == nil {
		files := i.site.files
		if f.clear {
			files = nil
		}
		i.owned = true
		i.backend, err = r.startBackend(ctx, "", files)
		if err == nil {
			i.address = i.backend.address
		}
		return i, err
	}
	if i.backend, i.owned = r.shared, o.ownBackend; o.ownBackend {
		if i.backend, err = r.startBackend(ctx, "", nil); err != nil {
			return i, err
		}
	}
	return i, r.startProxy(ctx, i)
}

func (r *rig) startProxy(ctx context.Context, i *instance) (err error) {
	i.address = ownAddress()
	i.site.address, i.site.backend = i.address, i.backend.address
	cmd, err := i.command(r, i.program, i.site)
	if err != nil {
		return err
	}
	if i.proxy, err = r.keeper.start(cmd); err != nil {
		return err
	}
	if err := r.ready(ctx, i.proxy, i.address, i.site.files); err != nil {
		return fmt.Errorf("start %s: %w", i.name, err)
	}
	return nil
}

func (i *instance) stop() {
	if i.proxy != nil {
		i.proxy.stop()
	}
	if i.owned && i.backend != nil {
		i.backend.stop()
	}
}

// clientFiles are what the generator connects with. nil: in clear.
func (i *instance) clientFiles() *tlsFiles {
	if i.clear {
		return nil
	}
	return i.site.files
}

// groups returns the process groups of proxy (0: none) and backend.
func (i *instance) groups() (proxy, backend int) {
	if i.proxy != nil {
		proxy = i.proxy.group
	}
	return proxy, i.backend.group
}

// signal reaches the proxy itself, not its workers.
func (i *instance) signal(s syscall.Signal) error { return i.proxy.cmd.Process.Signal(s) }

// write puts a configuration file into the site and returns its path.
func (s site) write(name, text string) (string, error) {
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
