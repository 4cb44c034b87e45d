package main

import (
	"context"
	"fmt"
)

const (
	// capacityRow is the closed loop whose throughput is taken for the capacity.
	capacityRow    = "get-64B-c50-p1"
	capacityRounds = 3
)

// setRate gives an open loop its share of the capacity, which it measures unless this run has measured it already. It returns
// why the row cannot be measured, or "".
func (b *bench) setRate(ctx context.Context, r *row) (why string, err error) {
	if b.capacity == nil {
		if err := b.measureCapacity(ctx); err != nil {
			return "", err
		}
	}
	capacity := b.capacity.of(rate).Median
	if capacity == 0 {
		return "the capacity is unknown: " + firstLineOf(b.capacity.Unmeasured), nil
	}
	r.work.Rate = capacity * float64(r.share) / 100
	r.Title += fmt.Sprintf(": %s of the %s of %s", showRate(r.work.Rate), showRate(capacity), b.capacity.Peer)
	return "", nil
}

// measureCapacity prefers HAProxy.
func (b *bench) measureCapacity(ctx context.Context) error {
	peer := b.rig.peers[0].name
	if _, ok := b.instances[haproxyName]; ok {
		peer = haproxyName
	}
	if b.capacity = find(b.results, capacityRow, peer); b.capacity != nil && len(b.capacity.Samples) > 0 {
		return nil
	}
	b.capacity = &result{Row: capacityRow, Peer: peer}
	closed := rowsNamed([]string{capacityRow})[0]
	for range capacityRounds {
		if err := b.sample(ctx, &closed, b.capacity); err != nil {
			return err
		}
	}
	return nil
}
