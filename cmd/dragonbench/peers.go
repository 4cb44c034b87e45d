package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// cipherSuite is the same for every peer whose cipher can be chosen; Go and Dragonfly choose it by themselves, since
// the generator puts it first.
const cipherSuite = "TLS_AES_128_GCM_SHA256"

// peer is a way to reach the backend with mutual TLS: a proxy, or the backend's own TLS.
type peer struct {
	name string
	// find returns the program and its version. An error says how to install it.
	find func(ctx context.Context, r *rig) (program, error)
	// command starts a proxy in front of a backend. nil: there is no proxy, clients reach a backend of their own.
	command func(r *rig, p program, s site) (*exec.Cmd, error)
	// clear: without TLS at all, to see what TLS costs.
	clear bool
	// reload makes a running peer take the certificate that was just put into its site. nil: it cannot, reloads says why.
	reload  func(ctx context.Context, i *instance) error
	reloads string // how, for the report
}

// program is a peer that was found.
type program struct{ path, version, options string }

// site is where one instance of a peer lives.
type site struct {
	dir     string // its own, for configuration
	files   *tlsFiles
	address string // where it is to listen
	backend string // address of the backend, in clear
	clients int    // so many must be able to connect at the same time
}

// usualClients is what proxies that must be told are told, unless a row needs more.
const usualClients = 8000

// allPeers are all there are, in the order of the report. The modes of dragontls come first, then those of another build of it
// where there is one.
func allPeers() []peer {
	peers := []peer{dragontlsPeer("paired"), dragontlsPeer("shared")}
	if os.Getenv(oldVariable) != "" {
		peers = append(peers, oldDragontlsPeer("paired"), oldDragontlsPeer("shared"))
	}
	return append(peers, haproxyPeer(), nginxPeer(), stunnelPeer(), ghostunnelPeer(), ownTLSPeer(), clearPeer())
}

// found is a peer that this machine has.
type found struct {
	peer
	program
}

// missing is one that it has not.
type missing struct {
	Name string `json:"name"`
	Why  string `json:"why"`
	Cure string `json:"cure"`
}

func (r *rig) findPeers(ctx context.Context, wanted []peer) error {
	for _, p := range wanted {
		program, err := p.find(ctx, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && isOwn(p.name) && !errors.Is(err, errModeRefused) {
			return err
		}
		if err != nil {
			why, cure, _ := strings.Cut(err.Error(), "\n")
			r.missing = append(r.missing, missing{p.name, why, cure})
			continue
		}
		r.peers = append(r.peers, found{p, program})
	}
	if len(r.peers) == 0 {
		return errors.New("no peer to measure")
	}
	return nil
}

// installed finds a program by name and asks it for its version; the first line that it prints is it.
func installed(name, cure string, versionArgs ...string) func(context.Context, *rig) (program, error) {
	return func(ctx context.Context, r *rig) (program, error) {
		path, err := lookPath(name)
		if err != nil {
			return program{}, fmt.Errorf("not installed\n%s", cure)
		}
		out, err := r.keeper.output(ctx, exec.Command(path, versionArgs...))
		if err != nil {
			return program{}, fmt.Errorf("%s %s: %w\n%s", path, strings.Join(versionArgs, " "), err, cure)
		}
		return program{path: path, version: firstWords(out), options: out}, nil
	}
}

// firstWords cuts the first line of a version text short.
func firstWords(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line, _, _ = strings.Cut(line, " - ")
	if words := strings.Fields(line); len(words) > 5 {
		line = strings.Join(words[:5], " ")
	}
	return line
}
