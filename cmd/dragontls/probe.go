package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const probeUsage = `usage: dragontls probe HOST:PORT [flags]

Verifies a running endpoint from outside: TLS versions, chain, names, expiry, stapled OCSP, client
certificates, resumption and a PING. One line per check: ok, FAIL (with what to do) or info.

  --ca FILE              CAs that the endpoint's certificate must come from (default: those of the system)
  --cert FILE            client certificate (PEM), for endpoints that demand one
  --key FILE             its key
  --servername NAME      name to ask for and to find in the certificate (default: HOST)
  --username USER        authenticates before the PING, with --password-file
  --password-file FILE   the password; without --username, that of the user "default"
  --timeout DURATION     limit of each connection, from dial to answer (default 5s)
  --json                 prints one JSON object instead

Exit codes: 0 nothing is wrong, 1 something is or there is no answer, 2 bad usage.
Makes up to 15 connections, some of which the endpoint is to refuse: its log will say so.
`

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

func probe(args []string, stdout, stderr io.Writer) int {
	o, err := parseProbe(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, probeUsage)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "dragontls probe: %v\n%s", err, probeUsage)
		return exitConfig
	}
	p := &prober{probeOptions: o, report: probeReport{Target: o.address, ServerName: o.serverName}}
	p.run()
	if o.json {
		err = p.report.writeJSON(stdout)
	} else {
		err = p.report.write(stdout)
	}
	if err != nil || p.report.findings() > 0 {
		return exitFailed
	}
	return exitOK
}

func parseProbe(args []string) (o probeOptions, err error) {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var caFile, certFile, keyFile, passwordFile string
	flags.StringVar(&caFile, "ca", "", "")
	flags.StringVar(&certFile, "cert", "", "")
	flags.StringVar(&keyFile, "key", "", "")
	flags.StringVar(&o.serverName, "servername", "", "")
	flags.StringVar(&o.username, "username", "", "")
	flags.StringVar(&passwordFile, "password-file", "", "")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Second, "")
	flags.BoolVar(&o.json, "json", false, "")
	var positional []string
	for { // flags may stand before and after HOST:PORT
		if err := flags.Parse(args); err != nil {
			return o, err
		}
		if flags.NArg() == 0 {
			break
		}
		positional = append(positional, flags.Arg(0))
		args = flags.Args()[1:]
	}
	flags.Visit(func(f *flag.Flag) {
		if f.Value.String() == "" {
			err = fmt.Errorf("--%s is empty", f.Name)
		}
	})
	switch {
	case err != nil:
		return o, err
	case len(positional) == 0:
		return o, errors.New("HOST:PORT is missing")
	case len(positional) > 1:
		return o, fmt.Errorf("unknown argument %q", positional[1])
	case o.timeout <= 0:
		return o, fmt.Errorf("--timeout %v: want more than zero", o.timeout)
	case (certFile == "") != (keyFile == ""):
		return o, errors.New("--cert and --key: want both or neither")
	case o.username != "" && passwordFile == "":
		return o, errors.New("--username: want --password-file too")
	}
	if o.host, err = probeHost(positional[0]); err != nil {
		return o, err
	}
	o.address = positional[0]
	if o.serverName == "" {
		o.serverName = o.host
	}
	return o, o.readFiles(caFile, certFile, keyFile, passwordFile)
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
