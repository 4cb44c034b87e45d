package proxy

import (
	"strings"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

// A session that waits for a silent lane before a QUIT or a RESET ends with its client, even if so much came after that command that the
// session cannot read on to the end.
func TestSessionWithAFullBufferDoesNotOutliveItsClient(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"QUIT", "RESET"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) { c.eofTimeout = 50 * time.Millisecond })
			w := h.dial()
			w.get("0")
			w.do(bulk("info"), "INFO") // without an own connection QUIT waits for nothing
			h.pass(stayInterval)
			head := b.hold("head")
			w.send(cmd("GET", "head"))
			<-head.reached
			before := h.Stats().BytesIn
			w.send(cmd(name) + strings.Repeat(cmd("PING"), netio.ChunkSize/len(cmd("PING"))+2))
			eventually(t, "the buffer is full", func() bool { return h.Stats().BytesIn == before+uint64(len(cmd(name))+netio.ChunkSize) })
			w.Close()
			h.wantClosed(closeClient, 1)
		})
	}
}
