package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// askInParallel has so many clients send a batch and read its replies, again and again.
func (h *harness) askInParallel(b *testing.B, clients int, batch string, read func(*bufio.Reader) error) {
	b.SetParallelism(clients / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		c, err := tls.Dial("tcp", h.addr, testPKI().clientConfig())
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		for pb.Next() {
			io.WriteString(c, batch)
			if err := read(r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkProxy is the whole way of a GET and of a handshake: clients and proxy in this process, redis-server as the
// backend. For profiles; to compare with other proxies there is cmd/dragonbench.
func BenchmarkProxy(b *testing.B) {
	backend := redisServer(b)
	for _, m := range modes() {
		h := m.start(b, backend, nil)
		value := bulk(strings.Repeat("x", 64))
		h.dial().do("+OK\r\n", "SET", "key", strings.Repeat("x", 64))
		for _, pipeline := range []int{1, 16} {
			batch, replies := strings.Repeat(cmd("GET", "key"), pipeline), len(value)*pipeline
			b.Run(fmt.Sprintf("%s/pipeline of %d", m.name, pipeline), func(b *testing.B) {
				h.askInParallel(b, 64, batch, func(r *bufio.Reader) error { _, err := r.Discard(replies); return err })
			})
		}
		b.Run(m.name+"/handshake", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c, err := tls.Dial("tcp", h.addr, testPKI().clientConfig())
					if err != nil {
						b.Error(err)
						return
					}
					io.WriteString(c, cmd("PING"))
					if _, err := io.ReadFull(c, make([]byte, len("+PONG\r\n"))); err != nil {
						b.Error(err)
					}
					c.Close()
				}
			})
		})
	}
}
