package netio

import (
	"runtime"
	"testing"
)

// A read that waits asks the kernel in vain first. It must count nothing for that: otherwise every client that sends nothing
// would wake the reliever while a share is nearly used up.
func TestReadThatFindsNothingCountsNothing(t *testing.T) {
	t.Parallel()
	for name, chunked := range map[string]bool{"a page": false, "a chunk": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lent := NewBuffers(quotaShare) // one byte for each identity
			conn, peer := pair(t, "tcp", "127.0.0.1:0")
			s, err := NewSocket(conn, lent.NewAccount(), 0)
			if err != nil {
				t.Fatal(err)
			}
			s.account.Join(QuotaKey{})
			s.wantChunk = chunked
			found := true
			if err := s.raw.Read(func(fd uintptr) bool { found = s.tryRead(fd); return true }); err != nil || found {
				t.Fatalf("it found something, or %v", err)
			}
			if over := lent.TakeExceeded(); len(over) > 0 || s.account.Held() != 0 {
				t.Errorf("%d bytes held, %d quotas over", s.account.Held(), len(over))
			}
			if _, err := peer.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := s.wait(nil); err != nil {
				t.Fatal(err)
			}
			if over := lent.TakeExceeded(); len(over) != 2 { // the quota, and All
				t.Errorf("%d quotas over behind a read that found a byte", len(over))
			}
		})
	}
}

// BenchmarkReadThatFindsNothing measures the first half of a read that waits, in which the kernel has nothing. Each
// goroutine has a socket with an account of its own, and all accounts have one quota, like the sessions of an identity.
func BenchmarkReadThatFindsNothing(b *testing.B) {
	lent := NewBuffers(1 << 30)
	for _, chunked := range []bool{false, true} {
		b.Run(map[bool]string{false: "page", true: "chunk"}[chunked], func(b *testing.B) {
			sockets := make(chan *Socket, runtime.GOMAXPROCS(0))
			for range cap(sockets) {
				conn, _ := pair(b, "tcp", "127.0.0.1:0")
				s, err := NewSocket(conn, lent.NewAccount(), 0)
				if err != nil {
					b.Fatal(err)
				}
				s.account.Join(QuotaKey{})
				s.wantChunk = chunked
				sockets <- s
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				s := <-sockets
				once := func(fd uintptr) bool { s.tryRead(fd); return true }
				for pb.Next() {
					if err := s.raw.Read(once); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
