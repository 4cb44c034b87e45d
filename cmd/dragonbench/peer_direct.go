package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

const (
	ownTLSName = "own TLS"
	clearName  = "no TLS"
)

// ownTLSPeer is the backend's own TLS: a process of its own, without a proxy.
func ownTLSPeer() peer {
	return peer{name: ownTLSName, find: findOwnTLS, reload: reloadRedis,
		reloads: "CONFIG SET of other file names (redis-server)"}
}

// clearPeer is the backend without TLS: what all others are a price on.
func clearPeer() peer {
	return peer{name: clearName, clear: true, find: func(ctx context.Context, r *rig) (program, error) {
		return r.backendFound(ctx)
	}}
}

func (r *rig) backendFound(ctx context.Context) (program, error) {
	if r.backend.model != nil {
		return program{path: r.backend.path, version: r.backend.name()}, nil
	}
	out, err := r.keeper.output(ctx, exec.Command(r.backend.path, "--version"))
	if err != nil {
		return program{}, fmt.Errorf("%s --version: %w", r.backend.path, err)
	}
	version := firstWords(out)
	if v := strings.Fields(out); len(v) > 2 && strings.HasPrefix(v[2], "v=") { // Redis server v=7.0.15 sha=...
		version = "redis-server " + v[2][2:]
	}
	return program{path: r.backend.path, version: version}, nil
}

// findOwnTLS tries: a redis-server may be built without TLS.
func findOwnTLS(ctx context.Context, r *rig) (program, error) {
	p, err := r.backendFound(ctx)
	if err != nil {
		return p, err
	}
	if r.backend.model != nil {
		return p, errors.New("a model has no TLS")
	}
	b, err := r.startBackend(ctx, "", r.authority.files)
	if err != nil {
		return p, fmt.Errorf("this %s has no TLS: %w", r.backend.name(), err)
	}
	b.stop()
	return p, nil
}

// reloadRedis gives Redis copies under other names: it reads no file again whose name it has already.
func reloadRedis(ctx context.Context, i *instance) error {
	if i.backend.program.dragonfly {
		return errCannotReload
	}
	i.reloads++
	names := [2]string{}
	for n, path := range []string{i.site.files.ServerCert, i.site.files.ServerKey} {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		names[n] = fmt.Sprintf("%s.%d", path, i.reloads%2)
		if err := os.WriteFile(names[n], b, 0o600); err != nil {
			return err
		}
	}
	config, err := i.site.files.client()
	if err != nil {
		return err
	}
	c, err := dial(ctx, i.address, config)
	if err != nil {
		return err
	}
	defer c.abort()
	return c.ask(encodeCommand("CONFIG", "SET", "tls-cert-file", names[0], "tls-key-file", names[1]), okReply)
}
