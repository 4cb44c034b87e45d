package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

const haproxyName = "HAProxy"

const haproxyConfig = `global
  maxconn %[6]d
  stats socket %[1]s/admin.sock mode 600 level admin
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen resp
  bind %[2]s ssl crt %[1]s/server.pem ca-file %[3]s verify required ciphersuites %[4]s
  server backend %[5]s
`

func haproxyPeer() peer {
	return peer{
		name: haproxyName,
		find: func(ctx context.Context, r *rig) (program, error) {
			p, err := installed("haproxy", "apt-get install haproxy", "-v")(ctx, r)
			if words := strings.Fields(p.version); len(words) > 2 { // HAProxy version 2.6.12-1+deb12u4 2026/10/17
				p.version = words[2]
			}
			return p, err
		},
		command: func(r *rig, p program, s site) (*exec.Cmd, error) {
			if err := joinPair(s); err != nil {
				return nil, err
			}
			text := fmt.Sprintf(haproxyConfig, s.dir, s.address, s.files.CA, cipherSuite, s.backend, s.clients)
			path, err := s.write("haproxy.cfg", text)
			// -db: in the foreground, one process with a thread for each CPU.
			return exec.Command(p.path, "-db", "-f", path), err
		},
		reload:  reloadHAProxy,
		reloads: "runtime API: set ssl cert, commit ssl cert",
	}
}

// joinPair writes certificate and key into one file, as HAProxy wants them.
func joinPair(s site) error {
	var both []byte
	for _, path := range []string{s.files.ServerCert, s.files.ServerKey} {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		both = append(both, b...)
	}
	return os.WriteFile(s.dir+"/server.pem", both, 0o600)
}

func reloadHAProxy(ctx context.Context, i *instance) error {
	if err := joinPair(i.site); err != nil {
		return err
	}
	path := i.site.dir + "/server.pem"
	pem, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// A blank line ends the payload, so there must be none inside.
	pem = []byte(strings.ReplaceAll(string(pem), "\n\n", "\n"))
	if err := askHAProxy(i.site.dir, fmt.Sprintf("set ssl cert %s <<\n%s\n", path, pem)); err != nil {
		return err
	}
	return askHAProxy(i.site.dir, "commit ssl cert "+path+"\n")
}

func askHAProxy(dir, command string) error {
	conn, err := net.Dial("unix", dir+"/admin.sock")
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte(command)); err != nil {
		return err
	}
	var answer strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		answer.Write(b[:n])
		if err != nil {
			break
		}
	}
	if text := answer.String(); !strings.Contains(text, "Success") && !strings.Contains(text, "Transaction") {
		return errors.New("haproxy: " + firstWords(text))
	}
	return nil
}
