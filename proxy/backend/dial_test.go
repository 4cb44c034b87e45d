package backend

import (
	"errors"
	"net"
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

// A dial that does not wait for its turn learns of a refusal from the last one, and the pause of those that wait stays as it is. It
// finds a backend that listens again although nobody else dials.
func TestDialAtOnceDoesNotWaitForARefusingBackend(t *testing.T) {
	t.Parallel()
	gone, here := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	gone.Close()
	var addr atomic.Pointer[net.Listener]
	addr.Store(&gone)
	b := New(Config{Buffers: netio.NewBuffers(0), Settings: Settings{ConnectTimeout: time.Minute}, Target: func() (string, string, error) {
		return "tcp", (*addr.Load()).Addr().String(), nil
	}})
	if _, err := b.Dial(t.Context(), Login{AtOnce: true}); !IsRefused(err) {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.pause, b.next = time.Hour, time.Now().Add(time.Hour)
	b.mu.Unlock()
	b.gate <- struct{}{} // somebody waits for its turn
	for range 100 {
		if _, err := b.Dial(t.Context(), Login{AtOnce: true}); !IsRefused(err) {
			t.Fatal(err)
		}
	}
	b.mu.Lock()
	pause := b.pause
	b.mu.Unlock()
	if pause != time.Hour {
		t.Errorf("the pause is %v", pause)
	}
	addr.Store(&here)
	for {
		c, err := b.Dial(t.Context(), Login{AtOnce: true})
		if err == nil {
			c.Close()
			return
		}
		if !IsRefused(err) {
			t.Fatal(err)
		}
	}
}
