package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

const ghostunnelCure = "go install github.com/ghostunnel/ghostunnel@latest (or name a binary in GHOSTUNNEL_BIN)"

func ghostunnelPeer() peer {
	return peer{
		name: "ghostunnel",
		find: func(ctx context.Context, r *rig) (program, error) {
			name := os.Getenv("GHOSTUNNEL_BIN")
			if name == "" {
				name = "ghostunnel"
			}
			p, err := installed(name, ghostunnelCure, "--version")(ctx, r)
			if os.Getenv("GHOSTUNNEL_BIN") != "" && err != nil {
				err = fmt.Errorf("GHOSTUNNEL_BIN: %w", err)
			}
			p.version = strings.TrimPrefix(p.version, "ghostunnel ")
			return p, err
		},
		command: func(r *rig, p program, s site) (*exec.Cmd, error) {
			// It takes no address of 127.0.0.0/8 but 127.0.0.1 for safe.
			return exec.Command(p.path, "server", "--listen", s.address, "--target", s.backend, "--unsafe-target", "--allow-all",
				"--cert", s.files.ServerCert, "--key", s.files.ServerKey, "--cacert", s.files.CA), nil
		},
		reload:  func(_ context.Context, i *instance) error { return i.signal(syscall.SIGUSR1) },
		reloads: "SIGUSR1",
	}
}
