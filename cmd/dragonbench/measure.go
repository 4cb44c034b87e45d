package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"time"
)

func cpuCount() int { return runtime.NumCPU() }

// work completes the row's work for an instance.
func (b *bench) work(r *row, i *instance) (w work, err error) {
	w = r.work
	w.Address, w.TLS = i.address, i.clientFiles()
	w.Warmup, w.Windows = b.plan.warmup, b.plan.windows(r)
	if r.distinct && !i.clear {
		w.Clients, err = i.authority.manyClients(w.Connections + w.Laggards)
	}
	return w, err
}

// measureLoad runs the generator against a running instance.
func (b *bench) measureLoad(ctx context.Context, r *row, i *instance) (sample, error) {
	w, err := b.work(r, i)
	if err != nil {
		return sample{}, err
	}
	proxy, backend := i.groups()
	var before, after cpuTimes
	var proxyPss, backendPss int64
	idlePss := groupPss(proxy)
	var ours []int
	windows, load, err := b.rig.runLoad(ctx, w, hooks{
		start: func(int) { before = readCPU() },
		stop: func(int) {
			after = readCPU()
			ours = b.rig.keeper.groups()
			proxyPss, backendPss = groupPss(proxy), groupPss(backend)
		},
	})
	if err != nil {
		return sample{}, err
	}
	s := fromWindow(windows[0])
	s.addCPU(before, after, i, load, ours, windows[0].Count)
	s.IdlePss, s.ProxyPss, s.BackendPss = idlePss, proxyPss, backendPss
	return s, nil
}

// measureMemory starts a fresh instance, since memory that was used before would hide growth.
func (b *bench) measureMemory(ctx context.Context, r *row, template *instance) (sample, error) {
	// A connection is one descriptor, and one more in a proxy. Peers and backends set some aside.
	need := uint64(r.work.Connections + r.work.Connections/4 + 200)
	if template.command != nil {
		need += uint64(r.work.Connections)
	}
	if b.rig.descriptors < need {
		return sample{}, fmt.Errorf("%w: the limit of open files is %d, this takes %d\nraise it: ulimit -n %d",
			errUnmeasurable, b.rig.descriptors, need, need)
	}
	i, err := b.rig.start(ctx, template.found, startOptions{ownBackend: true, ownFiles: true, clients: r.work.Connections + 100})
	if err != nil {
		return sample{}, err
	}
	defer i.stop()
	w, err := b.work(r, i)
	if err != nil {
		return sample{}, err
	}
	proxy, backend := i.groups()
	group := cmp.Or(proxy, backend)
	before := groupPss(group)
	var after, backendPss int64
	windows, _, err := b.rig.runLoad(ctx, w, hooks{stop: func(int) {
		after = groupPss(group)
		backendPss = groupPss(backend)
	}})
	if err != nil {
		return sample{}, err
	}
	return sample{
		PerConn: float64(after-before) / float64(r.work.Connections), IdlePss: before, ProxyPss: after, BackendPss: backendPss,
		Errors: windows[0].Errors,
	}, nil
}

// measureStorm compares the same load without and with rotations.
func (b *bench) measureStorm(ctx context.Context, r *row, template *instance) (sample, error) {
	if template.reload == nil || template.backend.program.dragonfly && template.command == nil {
		return sample{}, fmt.Errorf("%w: %w", errUnmeasurable, errCannotReload)
	}
	i, err := b.rig.start(ctx, template.found, startOptions{ownBackend: true, ownFiles: true})
	if err != nil {
		return sample{}, err
	}
	defer i.stop()
	w, err := b.work(r, i)
	if err != nil {
		return sample{}, err
	}
	s := newRotator(ctx, i)
	windows, _, err := b.rig.runLoad(ctx, w, hooks{
		start: func(n int) {
			if n == 1 {
				s.start()
			}
		},
		stop: func(n int) {
			if n == 1 {
				s.stop()
			}
		},
	})
	s.stop()
	if err != nil {
		return sample{}, err
	}
	if s.err != nil {
		return sample{}, fmt.Errorf("rotate: %w", s.err)
	}
	out := fromWindow(windows[1])
	out.Calm, out.Rotations = float64(windows[0].Count)/windows[0].Seconds, s.count
	for kind, n := range windows[0].Errors {
		out.Errors[kind] += n
	}
	return out, nil
}

// measureOutage kills the backend and starts it again on the same address.
func (b *bench) measureOutage(ctx context.Context, r *row, template *instance) (sample, error) {
	i, err := b.rig.start(ctx, template.found, startOptions{ownBackend: true})
	if err != nil {
		return sample{}, err
	}
	defer i.stop()
	w, err := b.work(r, i)
	if err != nil {
		return sample{}, err
	}
	var restarted time.Time
	windows, _, err := b.rig.runLoad(ctx, w, hooks{killed: func() error {
		old := i.backend
		old.stop()
		restarted = time.Now()
		p, err := b.rig.keeper.start(old.program.command(b.rig.keeper.dir, old.address, old.files))
		if err == nil {
			i.backend = &backend{process: p, program: old.program, address: old.address, files: old.files}
		}
		return err
	}})
	if err != nil {
		return sample{}, err
	}
	// The errors of an outage are what it is; they are no fault of the peer.
	return sample{FirstReply: float64(windows[0].FirstReply-restarted.UnixNano()) / 1e6}, nil
}
