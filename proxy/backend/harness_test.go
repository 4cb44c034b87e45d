package backend

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen takes connections, of which nobody reads, until the end of the test.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// listenOnTwo listens at one port of 127.0.0.1 and 127.0.0.2, and returns the first address.
func listenOnTwo(t *testing.T) string {
	t.Helper()
	for {
		first := listen(t, "127.0.0.1:0").Addr().String()
		_, port, _ := net.SplitHostPort(first)
		second, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", port))
		switch {
		case errors.Is(err, syscall.EADDRINUSE): // another port, then
		case err != nil:
			t.Fatal(err)
		default:
			t.Cleanup(func() { second.Close() })
			return first
		}
	}
}
