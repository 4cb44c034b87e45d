package main

import (
	"cmp"
	"context"
	"fmt"
)

// measureSlowOne is measureLoad beside a client of slow commands.
func (b *bench) measureSlowOne(ctx context.Context, r *row, i *instance) (sample, error) {
	if i.backend.program.model == nil {
		return sample{}, fmt.Errorf("%w: no command of %s takes %s on its own connection only\nmeasure it with --backend model",
			errUnmeasurable, i.backend.program.name(), slowTime)
	}
	s, err := b.measureLoad(ctx, r, i)
	if err == nil && s.Slow == 0 && len(s.Errors) == 0 {
		err = fmt.Errorf("%w: no slow command was answered within the window\nchoose longer --seconds", errUnmeasurable)
	}
	return s, err
}

// measureLaggards compares the same load without and with clients that do not keep up. The proxy is a fresh one, since the peak
// of its memory is looked for, and so is the backend, where there is no proxy.
func (b *bench) measureLaggards(ctx context.Context, r *row, template *instance) (sample, error) {
	i, err := b.rig.start(ctx, template.found, startOptions{ownBackend: true})
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
	idle := groupPss(proxy)
	var before, after cpuTimes
	var ours []int
	windows, load, err := b.rig.runLoad(ctx, w, hooks{
		start: func(int) { before = readCPU() },
		stop: func(int) {
			after = readCPU()
			ours = b.rig.keeper.groups()
		},
	})
	if err != nil {
		return sample{}, err
	}
	calm, crowded := windows[0], windows[1]
	s := fromWindow(crowded)
	s.addCPU(before, after, i, load, ours, crowded.Count)
	s.CalmP99, s.PeakRSS, s.IdlePss = calm.P99, groupPeakRSS(group), idle
	for kind, n := range calm.Errors {
		s.Errors[kind] += n
	}
	return s, nil
}
