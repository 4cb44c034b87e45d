package proxytest

import (
	"context"
	"slices"
	"sync"
)

// Resolver answers for a DNS resolver as a test says, and counts its questions. It is safe for concurrent use.
type Resolver struct {
	mu    sync.Mutex
	hosts []string
	err   error
	asked int
}

// NewResolver returns a Resolver that answers hosts.
func NewResolver(hosts ...string) *Resolver { return &Resolver{hosts: hosts} }

// Lookup answers hosts, or the error of Fail, for any name.
func (r *Resolver) Lookup(context.Context, string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return slices.Clone(r.hosts), r.err
}

// Set has it answer hosts from now on.
func (r *Resolver) Set(hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hosts = hosts
}

// Fail has it answer err from now on.
func (r *Resolver) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// Asked returns how often it was asked.
func (r *Resolver) Asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}
