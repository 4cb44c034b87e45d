package backend

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

func TestDialsAfterAFailureGoOneAtATime(t *testing.T) {
	t.Parallel()
	var dialling, most, dials atomic.Int64
	down := atomic.Bool{}
	down.Store(true)
	ln := listen(t, "127.0.0.1:0")
	b := New(Config{Buffers: netio.NewBuffers(0), Target: func() (string, string, error) {
		if n := dialling.Add(1); n > most.Load() {
			most.Store(n)
		}
		dials.Add(1)
		time.Sleep(time.Millisecond) // for others to come in, where they may
		dialling.Add(-1)
		if down.Load() {
			return "", "", errors.New("down")
		}
		return "tcp", ln.Addr().String(), nil
	}})
	if _, err := b.Dial(t.Context(), Login{}); err == nil {
		t.Fatal("dialled a backend that is down")
	}
	most.Store(0)
	var wg sync.WaitGroup
	var failed, served atomic.Int64
	for range 20 {
		wg.Go(func() {
			for {
				c, err := b.Dial(t.Context(), Login{})
				if err == nil {
					served.Add(1)
					c.Close()
					return
				}
				if failed.Add(1) == 5 {
					b.mu.Lock()
					if b.pause < 16*firstPause {
						t.Errorf("after six failures the pause is %v", b.pause)
					}
					b.mu.Unlock()
					down.Store(false)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() != 5 || served.Load() != 20 {
		t.Errorf("%d failed and %d served, want 5 and 20", failed.Load(), served.Load())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause != 0 {
		t.Error("still pausing")
	}
}
