package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// maxPasswordFile only keeps a wrong path, such as a device, from being read for ever.
const maxPasswordFile = 64 << 10

// probeOptions are the flags, with the files read.
type probeOptions struct {
	host, address      string
	serverName         string // to ask for and to find in the certificate
	ca                 *x509.CertPool
	caName             string           // of ca, for people
	certificate        *tls.Certificate // nil if there is none to show
	username, password string           // empty password: no AUTH
	timeout            time.Duration
	json               bool
}

// probeFlags are the flags of probe as they were typed.
type probeFlags struct {
	ca, cert, key, serverName, username, passwordFile string
	timeout                                           time.Duration
	json                                              bool
}

func (p program) probeCommand() *cobra.Command {
	var f probeFlags
	c := &cobra.Command{
		Use:     "probe HOST:PORT [flags]",
		GroupID: groupPrepare,
		Short:   "verifies a running endpoint from outside",
		Long: `Verifies a running endpoint from outside: TLS versions, chain, names, expiry, stapled OCSP, client
certificates, resumption and a PING. One line per check: ok, FAIL (with what to do) or info.`,
		Annotations: after(`Exit codes: 0 nothing is wrong, 1 something is or there is no answer, 2 bad usage.
Makes up to 15 connections, some of which the endpoint is to refuse: its log will say so.`),
		Args: oneArgument("HOST:PORT"),
		RunE: func(c *cobra.Command, args []string) error { return p.probe(c, args[0], f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.ca, "ca", "", "`FILE`: CAs that the endpoint's certificate must come from (default those of the system)")
	flags.StringVar(&f.cert, "cert", "", "`FILE`: client certificate (PEM), for endpoints that demand one")
	flags.StringVar(&f.key, "key", "", "`FILE`: its key")
	flags.StringVar(&f.serverName, "servername", "", "`NAME`: name to ask for and to find in the certificate (default HOST)")
	flags.StringVar(&f.username, "username", "", "`USER`: authenticates before the PING, with --password-file")
	flags.StringVar(&f.passwordFile, "password-file", "", "`FILE`: the password; without --username, that of the user \"default\"")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Second, "`DURATION`: limit of each connection, from dial to answer (default 5s)")
	flags.BoolVar(&f.json, "json", false, "prints one JSON object instead")
	return c
}

func (p program) probe(c *cobra.Command, address string, f probeFlags) error {
	if err := noEmptyFlag(c); err != nil {
		return err
	}
	o, err := f.options(address)
	if err != nil {
		return misused(c, "%v", err)
	}
	of := &prober{probeOptions: o, report: probeReport{Target: o.address, ServerName: o.serverName}}
	of.run()
	if o.json {
		err = of.report.writeJSON(p.stdout)
	} else {
		err = of.report.write(p.stdout)
	}
	if err != nil || of.report.findings() > 0 {
		return exitCode(exitFailed)
	}
	return nil
}

func (f probeFlags) options(address string) (o probeOptions, err error) {
	switch {
	case f.timeout <= 0:
		return o, fmt.Errorf("--timeout %v: want more than zero", f.timeout)
	case (f.cert == "") != (f.key == ""):
		return o, errors.New("--cert and --key: want both or neither")
	case f.username != "" && f.passwordFile == "":
		return o, errors.New("--username: want --password-file too")
	}
	if o.host, err = probeHost(address); err != nil {
		return o, err
	}
	o.address, o.serverName, o.username, o.timeout, o.json = address, cmp.Or(f.serverName, o.host), f.username, f.timeout, f.json
	return o, o.readFiles(f.ca, f.cert, f.key, f.passwordFile)
}

func probeHost(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if number, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || number == 0 || host == "" || strings.Contains(host, "/") {
		return "", fmt.Errorf("%q: want HOST:PORT, such as cache.example:6380 or [::1]:6380", address)
	}
	return host, nil
}

func (o *probeOptions) readFiles(ca, cert, key, password string) error {
	o.caName = "the CAs of the system"
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("--ca: %w", err)
		}
		o.ca, o.caName = x509.NewCertPool(), ca
		if !o.ca.AppendCertsFromPEM(pem) {
			return fmt.Errorf("--ca %q: no PEM certificate in it", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("--cert %q --key %q: %w", cert, key, err)
		}
		o.certificate = &pair
	}
	if password != "" {
		f, err := os.Open(password)
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxPasswordFile))
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		if o.password = string(bytes.TrimRight(text, "\r\n")); o.password == "" {
			return fmt.Errorf("--password-file %q: it is empty", password)
		}
	}
	return nil
}

// prober asks one endpoint, one connection after the other, and keeps what it finds.
type prober struct {
	probeOptions
	report  probeReport
	peer    string // the address that the first connection reached; the others go there too
	offered map[uint16]bool
}

func (p *prober) run() {
	if p.answersInClear() {
		return
	}
	first := p.try(probeAttempt{certificate: p.certificate, commands: []string{probePing}})
	if p.peer == "" {
		p.report.fail("connect", p.describe(first.err), "is it running, and is "+p.address+" where it listens?")
		return
	}
	p.report.Address = p.peer
	p.report.ok("connect", p.peer)
	p.checkVersions()
	if len(first.state.PeerCertificates) == 0 {
		p.report.fail("handshake", p.describe(first.err), probeCureOfHandshake(first.err))
		return
	}
	before := p.report.findings()
	p.checkChain(first.state)
	trusted := p.report.findings() == before && first.state.Version >= tls.VersionTLS12
	p.checkClientCertificate()
	p.checkResumption(first.state.PeerCertificates[0])
	if p.password != "" {
		first = p.checkAuth(first, trusted)
	}
	p.checkPing(first)
}
