package proxy

import (
	"net"
	"testing"

	"dragontls/proxy/netio"
)

// A read that waits asks the kernel in vain first. It must count nothing for that: where a share is nearly used up, each
// client that sends nothing would wake the reliever.
func TestReadThatFindsNothingCountsNothing(t *testing.T) {
	t.Parallel()
	for name, chunked := range map[string]bool{"a page": false, "a chunk": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lent := netio.NewBuffers(4) // one byte for each identity
			conn, err := net.Dial("tcp", fakeBackend(t, func(c net.Conn) {
				c.Read(make([]byte, 1))
				c.Write([]byte("x"))
				c.Read(make([]byte, 1))
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			s, err := newSocket(conn, lent.NewAccount(), 0)
			if err != nil {
				t.Fatal(err)
			}
			s.account.Join(netio.QuotaKey{})
			s.wantChunk = chunked
			found := true
			if err := s.raw.Read(func(fd uintptr) bool { found = s.tryRead(fd); return true }); err != nil || found {
				t.Fatalf("it found something, or %v", err)
			}
			if over := lent.TakeExceeded(); len(over) > 0 || s.account.Held() != 0 {
				t.Errorf("%d bytes held, %d quotas over", s.account.Held(), len(over))
			}
			if _, err := s.Conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := s.wait(nil); err != nil {
				t.Fatal(err)
			}
			if over := lent.TakeExceeded(); len(over) != 2 { // that of the quota, and all together
				t.Errorf("%d quotas over behind a read that found a byte", len(over))
			}
		})
	}
}

// BenchmarkReadThatFindsNothing is the first half of each read that waits: the kernel is asked and has nothing. The sockets
// have one account for each goroutine and one sum for all, like the sessions of an identity.
func BenchmarkReadThatFindsNothing(b *testing.B) {
	lent := netio.NewBuffers(1 << 30)
	silent := fakeBackend(b, func(c net.Conn) { c.Read(make([]byte, 1)) })
	for _, chunked := range []bool{false, true} {
		b.Run(map[bool]string{false: "page", true: "chunk"}[chunked], func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", silent)
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				s, err := newSocket(conn, lent.NewAccount(), 0)
				if err != nil {
					b.Error(err)
					return
				}
				s.account.Join(netio.QuotaKey{})
				s.wantChunk = chunked
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
