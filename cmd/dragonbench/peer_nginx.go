package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
)

const nginxConfig = `%[1]sdaemon off;
worker_processes auto;
pid %[2]s/nginx.pid;
error_log stderr error;
events { worker_connections %[9]d; }
stream {
  server {
    listen %[3]s ssl backlog=4096;
    ssl_certificate %[4]s;
    ssl_certificate_key %[5]s;
    ssl_client_certificate %[6]s;
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites %[7]s;
    proxy_pass %[8]s;
    proxy_timeout 1h;
  }
}
`

const nginxCure = "apt-get install nginx libnginx-mod-stream"

func nginxPeer() peer {
	return peer{
		name: "nginx stream",
		find: func(ctx context.Context, r *rig) (program, error) {
			p, err := installed("nginx", nginxCure, "-V")(ctx, r)
			if err != nil {
				return p, err
			}
			p.options, err = loadStream(p.options)
			p.version = strings.TrimPrefix(p.version, "nginx version: nginx/")
			return p, err
		},
		command: func(r *rig, p program, s site) (*exec.Cmd, error) {
			text := fmt.Sprintf(nginxConfig, p.options, s.dir, s.address, s.files.ServerCert, s.files.ServerKey, s.files.CA,
				cipherSuite, s.backend, nginxConnections(s.clients))
			path, err := s.write("nginx.conf", text)
			return exec.Command(p.path, "-p", s.dir, "-e", "stderr", "-c", path), err
		},
		reload:  func(_ context.Context, i *instance) error { return i.signal(syscall.SIGHUP) },
		reloads: "SIGHUP: new workers, old ones go on with their connections",
	}
}

// nginxConnections is what one worker may have to hold: each client takes two connections, and workers do not share evenly. It
// takes memory for all of them at once, so that it gets no more than half where that does.
func nginxConnections(clients int) int {
	if clients <= usualClients {
		return 8192
	}
	return 2 * clients
}

var modulesPath = regexp.MustCompile(`--modules-path=(\S+)`)

// loadStream is the line that a configuration needs, from what `nginx -V` prints: none where stream is built in.
func loadStream(options string) (string, error) {
	switch {
	case !strings.Contains(options, "--with-stream_ssl_module"):
	case !strings.Contains(options, "--with-stream=dynamic"):
		return "", nil
	default:
		if m := modulesPath.FindStringSubmatch(options); m != nil {
			module := m[1] + "/ngx_stream_module.so"
			if _, err := os.Stat(module); err == nil {
				return "load_module " + module + ";\n", nil
			}
		}
	}
	return "", errors.New("nginx is installed without its stream module\n" + nginxCure)
}
