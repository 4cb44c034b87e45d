package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"syscall"
)

const stunnelConfig = `foreground = yes
pid =
debug = warning
[resp]
accept = %s
connect = %s
cert = %s
key = %s
CAfile = %s
verifyChain = yes
sslVersionMin = TLSv1.3
ciphersuites = %s
TIMEOUTidle = 43200
`

func stunnelPeer() peer {
	return peer{
		name: "stunnel",
		find: func(ctx context.Context, r *rig) (program, error) {
			p, err := installed("stunnel", "apt-get install stunnel4", "-version")(ctx, r)
			if v := stunnelVersion.FindStringSubmatch(p.options); v != nil {
				p.version = v[1]
			}
			return p, err
		},
		command: func(r *rig, p program, s site) (*exec.Cmd, error) {
			text := fmt.Sprintf(stunnelConfig, s.address, s.backend, s.files.ServerCert, s.files.ServerKey, s.files.CA, cipherSuite)
			path, err := s.write("stunnel.conf", text)
			return exec.Command(p.path, path), err
		},
		reload:  func(_ context.Context, i *instance) error { return i.signal(syscall.SIGHUP) },
		reloads: "SIGHUP",
	}
}

// stunnelVersion is not in the first line of what it prints.
var stunnelVersion = regexp.MustCompile(`(?m)^stunnel (\S+) on`)
