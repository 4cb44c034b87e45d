package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dragontls/certs/pki"
)

const pkiUsage = `usage: dragontls pki init|client NAME|rotate|revoke NAME|show [flags]

  init                 makes ca, server and client: a certificate (.crt) and a key (.key) each;
                       and ca.crl, an empty CRL, good for a year
  client NAME          makes another client certificate
  rotate               replaces the server certificate and its key; a running proxy takes it up
  revoke NAME          adds the certificate NAME.crt to ca.crl, which is good for a year again; a proxy
                       refuses it whose DRAGONTLS_TLS_CRL_FILE is that file, as with dev and compose
  show                 lists the certificates and what is revoked

  --dir DIR            directory of the PKI (default pki)
  --host A,B           init, rotate: names and addresses of the server
                       (default localhost,127.0.0.1,::1,dragontls; rotate: as before)
  --days N             init, rotate: validity of the server certificate, 1 to 398 (default 90)
  --key-mode MODE      init, rotate: mode of server.key: 0600 (default), 0400, 0640 or 0440
  --if-missing         init: exit 0 and keep every certificate if there is a CA already; makes a
                       missing ca.crl
  --owner-from PATH    init, as root: give the directory and its files, also those kept, to
                       the owner of PATH and the group of this process, which new files in it
                       inherit; server.key gets the mode of --key-mode
  --serial HEX         revoke, without NAME: the serial of a certificate whose file is gone
  --renew              revoke, without NAME: revokes nothing, signs ca.crl for another year

For development and tests: the key of the CA lies beside the certificates.
`

// pkiFlags are the flags of all actions; each action registers those it knows.
type pkiFlags struct {
	dir, hosts, keyMode, ownerFrom, serial string
	days                                   int
	ifMissing, renew                       bool
}

func runPKI(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && (isHelp(args[0]) || args[0] == "help") {
		fmt.Fprint(stdout, pkiUsage)
		return exitOK
	}
	misused := func(format string, a ...any) int {
		fmt.Fprintf(stderr, "dragontls pki: "+format+"\n%s", append(a, pkiUsage)...)
		return exitConfig
	}
	// Flags may come before the action, which says which of them are known.
	action, rest := splitAction(args)
	if action == "" {
		return misused("what to do is missing")
	}
	if !slices.Contains([]string{"init", "client", "rotate", "revoke", "show"}, action) {
		return misused("unknown action %q", action)
	}
	f, positional, err := parsePKI(action, rest)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, pkiUsage)
		return exitOK
	}
	if err != nil {
		return misused("%s: %v", action, err)
	}
	wanted := 0
	if action == "client" || action == "revoke" && f.serial == "" && !f.renew {
		wanted = 1
	}
	if len(positional) < wanted {
		return misused("%s: the name is missing", action)
	}
	if len(positional) > wanted {
		return misused("%s: unknown argument %q", action, positional[wanted])
	}
	o, err := f.options()
	if err != nil {
		return misused("%s: %v", action, err)
	}
	if err := actPKI(action, positional, f, o, stdout); err != nil {
		fmt.Fprintf(stderr, "dragontls pki %s: %v\n", action, err)
		return exitFailed
	}
	return exitOK
}

func actPKI(action string, positional []string, f pkiFlags, o pki.Options, stdout io.Writer) error {
	switch action {
	case "init":
		return initPKI(f, o, stdout)
	case "client":
		if err := pki.Client(f.dir, positional[0]); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "made %s\n", filepath.Join(f.dir, positional[0]+".crt and .key"))
		return nil
	case "revoke":
		return revokePKI(f, positional, stdout)
	case "rotate":
		if err := pki.Rotate(o); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "replaced %s\n", filepath.Join(f.dir, "server.crt and .key"))
		return nil
	default:
		return pki.Show(f.dir, stdout)
	}
}

func initPKI(f pkiFlags, o pki.Options, stdout io.Writer) error {
	ca := filepath.Join(f.dir, "ca.crt")
	did := "made a CA, a server and a client certificate in " + f.dir
	err := pki.Init(o)
	if f.ifMissing && errors.Is(err, pki.ErrExists) {
		if _, missing := os.Stat(ca); missing == nil {
			did, err = "kept what is there: "+ca, completeCRL(f.dir)
		}
	}
	if err != nil {
		return err
	}
	// What was kept too: another user may have made it, or we were cut short last time.
	if f.ownerFrom != "" {
		if err := giveAway(f.dir, f.ownerFrom, o.KeyMode); err != nil {
			return err
		}
	}
	fmt.Fprintln(stdout, did)
	return nil
}

// splitAction takes the first argument that is neither a flag nor the value of
// one out of args.
func splitAction(args []string) (action string, rest []string) {
	for i := 0; i < len(args); i++ {
		name := strings.TrimLeft(args[i], "-")
		if name == args[i] {
			return args[i], slices.Concat(args[:i], args[i+1:])
		}
		if name != "if-missing" && name != "renew" && !isHelp(args[i]) && !strings.Contains(name, "=") {
			i++ // its value
		}
	}
	return "", args
}

// parsePKI accepts flags before, between and after positional arguments.
func parsePKI(action string, args []string) (f pkiFlags, positional []string, err error) {
	flags := flag.NewFlagSet(action, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&f.dir, "dir", "pki", "")
	if action == "init" || action == "rotate" {
		flags.StringVar(&f.hosts, "host", "", "")
		flags.StringVar(&f.keyMode, "key-mode", "", "")
		flags.IntVar(&f.days, "days", 0, "")
	}
	if action == "init" {
		flags.BoolVar(&f.ifMissing, "if-missing", false, "")
		flags.StringVar(&f.ownerFrom, "owner-from", "", "")
	}
	if action == "revoke" {
		flags.StringVar(&f.serial, "serial", "", "")
		flags.BoolVar(&f.renew, "renew", false, "")
	}
	for {
		if err := flags.Parse(args); err != nil {
			return f, nil, err
		}
		if flags.NArg() == 0 {
			break
		}
		positional = append(positional, flags.Arg(0))
		args = flags.Args()[1:]
	}
	flags.Visit(func(g *flag.Flag) {
		if g.Name == "days" && (f.days < 1 || f.days > 398) {
			err = fmt.Errorf("--days %d: want 1 to 398", f.days)
		} else if g.Value.String() == "" {
			err = fmt.Errorf("--%s is empty", g.Name)
		}
	})
	if err == nil && f.serial != "" {
		if _, bad := parseSerial(f.serial); bad != nil {
			err = bad
		} else if f.renew {
			err = errors.New("--serial and --renew: one of them at a time")
		}
	}
	return f, positional, err
}

func (f pkiFlags) options() (pki.Options, error) {
	o := pki.Options{Dir: f.dir, Validity: time.Duration(f.days) * 24 * time.Hour}
	if f.hosts != "" {
		for host := range strings.SplitSeq(f.hosts, ",") {
			o.Hosts = append(o.Hosts, strings.TrimSpace(host))
		}
	}
	if f.keyMode != "" {
		mode, err := strconv.ParseUint(f.keyMode, 8, 32)
		if err != nil || !slices.Contains([]uint64{0o600, 0o400, 0o640, 0o440}, mode) {
			return o, fmt.Errorf("--key-mode %q: want 0600, 0400, 0640 or 0440", f.keyMode)
		}
		o.KeyMode = os.FileMode(mode)
	}
	return o, nil
}
