package proxy

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

// bigValue is 64 MiB, or what TEST_BIG_VALUE says in MiB; CI sets 512.
func bigValue(t testing.TB) int64 {
	v := os.Getenv("TEST_BIG_VALUE")
	if v == "" {
		return 64 << 20
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 || n > 512 {
		t.Fatalf("TEST_BIG_VALUE=%q: want 1 to 512", v)
	}
	return n << 20
}

func TestBigValuesPassInLittleMemory(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		size := bigValue(t)
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
		before := heap()
		stop := h.mostLent()
		most := int64(0)
		note := func(i int64) {
			if i%(16<<20) == 0 {
				most = max(most, heap())
			}
		}
		limit := time.Now().Add(2 * time.Minute)
		w.SetDeadline(limit)
		w.send(fmt.Sprintf("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n", size))
		for i := int64(0); i < size; i += int64(len(block)) {
			if _, err := w.Write(block); err != nil {
				t.Fatal(err)
			}
			note(i)
		}
		w.send("\r\n")
		w.SetReadDeadline(limit)
		ok := make([]byte, 5)
		if _, err := io.ReadFull(w.r, ok); err != nil || string(ok) != "+OK\r\n" {
			t.Fatalf("SET: %q, %v", ok, err)
		}
		w.send(cmd("GET", "big"))
		w.want(fmt.Sprintf("$%d\r\n", size))
		w.SetReadDeadline(limit)
		got := make([]byte, len(block))
		for i := int64(0); i < size; i += int64(len(block)) {
			if _, err := io.ReadFull(w.r, got); err != nil || !bytes.Equal(got, block) {
				t.Fatalf("GET: at %d: %v", i, err)
			}
			note(i)
		}
		w.want("\r\n")
		w.do("+PONG\r\n", "PING")
		if lent := stop(); lent > 8*netio.ChunkSize {
			t.Errorf("%d bytes were lent", lent)
		}
		if grown := most - before; grown > 8<<20 {
			t.Errorf("the heap grew by %d KiB", grown>>10)
		}
	})
}
