package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Another build of dragontls is a peer of its own, in each mode, with its own program.
func TestOldBuildIsMeasuredBesideTheNewOne(t *testing.T) {
	r := testRig(t)
	old := filepath.Join(t.TempDir(), "dragontls-of-yesterday")
	if err := os.Symlink(r.dragontlsBin, old); err != nil {
		t.Fatal(err)
	}
	t.Setenv(oldVariable, old)
	p := quickPlan()
	if err := p.narrow("dragontls,old"); err != nil {
		t.Fatal(err)
	}
	if err := r.findPeers(context.Background(), p.peers); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range r.peers {
		got[f.name] = f.path
	}
	for _, mode := range []string{"paired", "shared"} {
		if got["dragontls "+mode] != r.dragontlsBin || got["old dragontls "+mode] != old {
			t.Errorf("%s: got %q, want both builds", mode, got)
		}
	}
	storm := stormRow()
	storm.ownOnly = true
	if !isOwn(r.peers[3].name) || !storm.takes(r.peers[3].peer) {
		t.Errorf("%s is not taken for dragontls", r.peers[3].name)
	}
	t.Setenv(oldVariable, "")
	if err := p.narrow("old"); err == nil {
		t.Error("there is an old build though none is named")
	}
}

func TestSiteKnowsHowManyClientsCome(t *testing.T) {
	r := testRig(t)
	ctx := context.Background()
	if err := r.findPeers(ctx, peersNamed([]string{clearName})); err != nil {
		t.Fatal(err)
	}
	for clients, want := range map[int]int{0: usualClients, 100: usualClients, 10100: 10100} {
		i, err := r.start(ctx, r.peers[0], startOptions{clients: clients})
		if err != nil {
			t.Fatal(err)
		}
		i.stop()
		if i.site.clients != want {
			t.Errorf("%d clients: got %d, want %d", clients, i.site.clients, want)
		}
	}
}

// A row for which there are too few descriptors says so, and how many it needs.
func TestMemoryRowSaysWhenItCannotRun(t *testing.T) {
	b := &bench{rig: &rig{descriptors: 20000}, plan: quickPlan()}
	row := memoryRow(10000, false)
	proxy := &instance{found: found{peer: haproxyPeer()}}
	_, err := b.measureMemory(context.Background(), &row, proxy)
	if !errors.Is(err, errUnmeasurable) || !strings.Contains(err.Error(), "the limit of open files is 20000, this takes 22700\nraise it: ulimit -n 22700") {
		t.Errorf("got %v", err)
	}
}

func TestProxiesAreToldHowManyClientsComeAtOnce(t *testing.T) {
	a, err := newAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		clients int
		want    []string
	}{
		{usualClients, []string{"maxconn 8000\n", "worker_connections 8192;"}},
		{10100, []string{"maxconn 10100\n", "worker_connections 20200;"}},
	} {
		s := site{dir: t.TempDir(), files: a.files, address: "127.0.0.1:1", backend: "127.0.0.1:2", clients: test.clients}
		for n, p := range []peer{haproxyPeer(), nginxPeer()} {
			cmd, err := p.command(nil, program{path: "/bin/true"}, s)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(s.dir, []string{"haproxy.cfg", "nginx.conf"}[n])
			text, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(text), test.want[n]) {
				t.Errorf("%s, %d clients: there is no %q in\n%s%v", p.name, test.clients, test.want[n], text, err)
			}
			if !slices.Contains(cmd.Args, path) {
				t.Errorf("%s is not told to read %s: %q", p.name, path, cmd.Args)
			}
		}
	}
}

// A version goes into tables and web pages, where the colours of a terminal are rubbish.
func TestVersionsHaveNoColours(t *testing.T) {
	k, err := newKeeper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	r := &rig{keeper: k}
	r.backend.path = filepath.Join(k.dir, "dragonfly")
	script := "#!/bin/sh\nprintf '\\033[1;32mdragonfly v1.40.0\\033[0m-\\033[38;5;9mabcdef\\033[m\\n'\n"
	if err := os.WriteFile(r.backend.path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := r.backendFound(context.Background())
	if want := "dragonfly v1.40.0-abcdef"; err != nil || p.version != want {
		t.Errorf("got %q, %v, want %q", p.version, err, want)
	}
	if p, err = installed(r.backend.path, "", "-v")(context.Background(), r); err != nil || strings.ContainsRune(p.version, 0x1b) {
		t.Errorf("got %q, %v", p.version, err)
	}
}
