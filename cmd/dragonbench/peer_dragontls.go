package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// errModeRefused is the one reason for which dragontls may be missing: a run without it would be idle.
var errModeRefused = errors.New("this binary refuses the mode")

// oldPrefix begins the names of the peers whose binary oldVariable names: another build of dragontls, to compare both in one
// run.
const (
	oldPrefix   = "old "
	oldVariable = "DRAGONTLS_OLD_BIN"
)

// Peers that others are compared with.
const (
	paired    = "dragontls paired"
	shared    = "dragontls shared"
	oldShared = oldPrefix + shared
)

// dragontlsPeer is dragontls in one of its modes. A mode that the binary refuses is missing.
func dragontlsPeer(mode string) peer {
	return dragontlsBuild("dragontls "+mode, mode, (*rig).dragontls)
}

// oldDragontlsPeer is the other build.
func oldDragontlsPeer(mode string) peer {
	return dragontlsBuild(oldPrefix+"dragontls "+mode, mode, func(*rig, context.Context) (string, error) {
		return os.Getenv(oldVariable), nil
	})
}

// dragontlsBuild is the build that binary finds, in one of its modes.
func dragontlsBuild(name, mode string, binary func(*rig, context.Context) (string, error)) peer {
	p := peer{
		name: name,
		command: func(r *rig, p program, s site) (*exec.Cmd, error) {
			cmd := exec.Command(p.path, "serve")
			cmd.Env = dragontlsEnv(mode, s)
			return cmd, nil
		},
		reload:  func(context.Context, *instance) error { return nil }, // it watches the files
		reloads: "by itself: it watches the files",
	}
	p.find = func(ctx context.Context, r *rig) (program, error) {
		path, err := binary(r, ctx)
		if err != nil {
			return program{}, err
		}
		return r.findDragontls(ctx, p, path, mode)
	}
	return p
}

// dragontlsEnv holds none of the machine's own DRAGONTLS_ variables: the settings are the defaults.
func dragontlsEnv(mode string, s site) []string {
	env := []string{
		"DRAGONTLS_LISTEN=" + s.address, "DRAGONTLS_ADMIN_LISTEN=", "DRAGONTLS_BACKEND_URL=redis://" + s.backend,
		"DRAGONTLS_BACKEND_MODE=" + mode, "DRAGONTLS_TLS_CERT_FILE=" + s.files.ServerCert,
		"DRAGONTLS_TLS_KEY_FILE=" + s.files.ServerKey, "DRAGONTLS_TLS_CLIENT_CA_FILE=" + s.files.CA,
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DRAGONTLS_") {
			env = append(env, v)
		}
	}
	return env
}

func (r *rig) findDragontls(ctx context.Context, own peer, path, mode string) (program, error) {
	out, err := r.keeper.output(ctx, exec.Command(path, "version"))
	if err != nil {
		return program{}, fmt.Errorf("%s version: %w", path, err)
	}
	p := program{path: path, version: strings.TrimPrefix(firstWords(out), "dragontls ")}
	// Whether it knows the mode is asked by using it.
	i, err := r.start(ctx, found{own, p}, startOptions{})
	if err != nil {
		if strings.Contains(err.Error(), "BACKEND_MODE") {
			return program{}, fmt.Errorf("%w: DRAGONTLS_BACKEND_MODE=%s", errModeRefused, mode)
		}
		return program{}, err
	}
	i.stop()
	return p, nil
}

// dragontls builds the binary once, unless DRAGONTLS_BIN names one.
func (r *rig) dragontls(ctx context.Context) (string, error) {
	if r.dragontlsBin != "" {
		return r.dragontlsBin, nil
	}
	path, err := lookPath("go")
	if err != nil {
		return "", fmt.Errorf("no Go to build it with: %w\nname a binary in DRAGONTLS_BIN", err)
	}
	bin := r.keeper.dir + "/dragontls"
	if _, err := os.Stat(bin); err == nil { // built for another backend of this run
		return bin, nil
	}
	cmd := exec.Command(path, "build", "-o", bin, "dragontls/cmd/dragontls")
	cmd.Env = append(os.Environ(), "GOTMPDIR="+r.keeper.dir)
	if out, err := r.keeper.output(ctx, cmd); err != nil {
		return "", fmt.Errorf("build dragontls: %w\nrun it in a clone of the repository, or name a binary in DRAGONTLS_BIN\n%s", err, out)
	}
	r.dragontlsBin = bin
	return bin, nil
}
