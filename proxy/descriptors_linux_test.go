package proxy

import (
	"crypto/tls"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// withoutDescriptors has this process open no file until the function that it returns is called.
func withoutDescriptors(t *testing.T) (again func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	again = func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(again)
	return again
}

// wantOutOfDescriptors waits until the limit was reached and wants the log to tell of it, once.
func (h *harness) wantOutOfDescriptors() {
	h.t.Helper()
	l := h.limitOf("descriptors")
	eventually(h.t, "the log tells", func() bool { return len(h.linesWith("limit", l.Name)) > 0 })
	lines := h.linesWith("limit", l.Name)
	if len(lines) != 1 || lines[0]["level"] != "warn" || lines[0]["value"] != float64(l.Value) || lines[0]["error"] == nil {
		h.t.Errorf("logged %v", lines)
	}
	if h.limitOf("descriptors").Reached == 0 || l.Value == 0 {
		h.t.Errorf("%+v", l)
	}
}

// A process that has as many files open as it may says so where a client comes, and goes on afterwards.
func TestAcceptOutOfDescriptorsIsTold(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		h.wantReady(true, "")
		h.dial().do("+PONG\r\n", "PING")
		if l := h.limitOf("descriptors"); l.Used <= 0 || l.Used >= l.Value {
			t.Errorf("%+v", l)
		}
		client, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(client)
		again := withoutDescriptors(t)
		at := netip.MustParseAddrPort(h.addr)
		if err := syscall.Connect(client, &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
			t.Fatal(err)
		}
		h.wantOutOfDescriptors()
		again()
		h.dial().do("+PONG\r\n", "PING")
	})
}

// It says so where it dials the backend, too; the command waits.
func TestDialOutOfDescriptorsIsTold(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		h.wantReady(true, "")
		var raw net.Conn = dialRaw(t, h.addr)
		eventually(t, "it is accepted", func() bool { return h.pending.len() == 1 })
		again := withoutDescriptors(t)
		w := newWire(t, tls.Client(raw, testPKI().clientConfig()))
		w.send(cmd("PING"))
		h.wantOutOfDescriptors()
		again()
		w.want("+PONG\r\n")
	})
}
