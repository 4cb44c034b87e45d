package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dragontls/certs/pki"
)

// pkiFlags are the flags of all actions; each action has those it knows.
type pkiFlags struct {
	dir, hosts, keyMode, ownerFrom, serial string
	days                                   int
	ifMissing, renew                       bool
}

// pkiActions are the commands under pki, with the names of the flags that they know.
var pkiActions = []struct {
	use, short, long string
	flags            []string
}{
	{"init", "makes ca, server and client: a certificate (.crt) and a key (.key) each", `Makes ca, server and client: a certificate (.crt) and a key (.key) each; and ca.crl, an empty CRL,
good for a year.`, []string{"dir", "host", "days", "key-mode", "if-missing", "owner-from"}},
	{"client NAME", "makes another client certificate", "Makes the certificate NAME.crt and its key NAME.key.", []string{"dir"}},
	{"rotate", "replaces the server certificate and its key; a running proxy takes it up",
		"Replaces the server certificate and its key; a running proxy takes it up.", []string{"dir", "host", "days", "key-mode"}},
	{"revoke NAME", "adds a certificate to ca.crl", `Adds the certificate NAME.crt to ca.crl, which is good for a year again; a proxy refuses it whose
DRAGONTLS_TLS_CRL_FILE is that file, as with dev and compose.`, []string{"dir", "serial", "renew"}},
	{"show", "lists the certificates and what is revoked", "Lists the certificates and what is revoked.", []string{"dir"}},
}

func (p program) pkiCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "pki init|client NAME|rotate|revoke NAME|show [flags]",
		GroupID: groupPrepare,
		Short:   "makes and renews development certificates",
		Long:    "For development and tests: the key of the CA lies beside the certificates.",
		Args:    cobra.ArbitraryArgs, // "pki help", and a nearest name is suggested
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return misused(c, "what to do is missing")
			case args[0] == "help":
				return c.Help()
			}
			return misused(c, "unknown action %q%s", args[0], suggest(args[0], names(c)))
		},
	}
	// Flags may stand before the action, which reads them; to find it, cobra has to know which of them have a value.
	before := new(pkiFlags).set()
	before.VisitAll(func(f *pflag.Flag) { f.Hidden = f.Name != "dir" })
	c.Flags().AddFlagSet(before)
	for _, a := range pkiActions {
		f := new(pkiFlags)
		action := &cobra.Command{
			Use: a.use + " [flags]", Short: a.short, Long: a.long,
			Annotations: after("Exit codes: 0 done, 1 failed, 2 misuse."),
			Args:        cobra.ArbitraryArgs, // some flags stand for the name
			RunE:        func(c *cobra.Command, args []string) error { return p.runPKI(c, f, args) },
		}
		known := f.set()
		for _, name := range a.flags {
			action.Flags().AddFlag(known.Lookup(name))
		}
		c.AddCommand(action)
	}
	return c
}

// set returns all flags; parsing them writes to f.
func (f *pkiFlags) set() *pflag.FlagSet {
	all := pflag.NewFlagSet("pki", pflag.ContinueOnError)
	all.SortFlags = false
	all.StringVar(&f.dir, "dir", "pki", "`DIR`: directory of the PKI (default pki)")
	all.StringVar(&f.hosts, "host", "", "`A,B`: names and addresses of the server (default localhost,127.0.0.1,::1,dragontls; rotate: as before)")
	all.IntVar(&f.days, "days", 0, "`N`: validity of the server certificate, 1 to 398 (default 90)")
	all.StringVar(&f.keyMode, "key-mode", "", "`MODE`: mode of server.key: 0600 (default), 0400, 0640 or 0440")
	all.BoolVar(&f.ifMissing, "if-missing", false, "exit 0 and keep every certificate if there is a CA already; makes a missing ca.crl")
	all.StringVar(&f.ownerFrom, "owner-from", "", "`PATH`: as root, give the directory and its files, also those kept, to the owner of PATH and "+
		"the group of this process, which new files in it inherit; server.key gets the mode of --key-mode")
	all.StringVar(&f.serial, "serial", "", "`HEX`: without NAME, the serial of a certificate whose file is gone")
	all.BoolVar(&f.renew, "renew", false, "without NAME: revokes nothing, signs ca.crl for another year")
	return all
}

func (p program) runPKI(c *cobra.Command, f *pkiFlags, args []string) error {
	o, err := f.options(c)
	if err != nil {
		return err
	}
	wanted := 0
	if c.Name() == "client" || c.Name() == "revoke" && f.serial == "" && !f.renew {
		wanted = 1
	}
	if len(args) < wanted {
		return misused(c, "the name is missing")
	}
	if err := noArguments(c, args[wanted:]); err != nil {
		return err
	}
	if err := actPKI(c.Name(), args, *f, o, p.stdout); err != nil {
		fmt.Fprintf(p.stderr, "%s: %v\n", c.CommandPath(), err)
		return exitCode(exitFailed)
	}
	return nil
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

// options returns what the flags mean together. The error is a misuse.
func (f *pkiFlags) options(c *cobra.Command) (pki.Options, error) {
	o := pki.Options{Dir: f.dir, Validity: time.Duration(f.days) * 24 * time.Hour}
	if err := noEmptyFlag(c); err != nil {
		return o, err
	}
	if c.Flags().Changed("days") && (f.days < 1 || f.days > 398) {
		return o, misused(c, "--days %d: want 1 to 398", f.days)
	}
	if f.serial != "" {
		if _, err := parseSerial(f.serial); err != nil {
			return o, misused(c, "%v", err)
		}
		if f.renew {
			return o, misused(c, "--serial and --renew: one of them at a time")
		}
	}
	if f.hosts != "" {
		for host := range strings.SplitSeq(f.hosts, ",") {
			o.Hosts = append(o.Hosts, strings.TrimSpace(host))
		}
	}
	if f.keyMode != "" {
		mode, err := strconv.ParseUint(f.keyMode, 8, 32)
		if err != nil || !slices.Contains([]uint64{0o600, 0o400, 0o640, 0o440}, mode) {
			return o, misused(c, "--key-mode %q: want 0600, 0400, 0640 or 0440", f.keyMode)
		}
		o.KeyMode = os.FileMode(mode)
	}
	return o, nil
}
