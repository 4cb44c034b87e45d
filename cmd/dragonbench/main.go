// Command dragonbench measures dragontls side by side with other ways to bring mutual TLS to Redis or Dragonfly: with
// the same certificates, the same backend and the same client, in interleaved rounds on one machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// loadCommand is the hidden subcommand that runs the load generator.
const loadCommand = "load"

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() { os.Exit(dispatch(os.Args[1:])) }

func dispatch(args []string) int {
	if len(args) > 0 && args[0] == modelCommand {
		return serveModel(args[1:])
	}
	if len(args) == 1 {
		switch args[0] {
		case loadCommand:
			return generate(os.Stdin, os.Stdout)
		case janitorCommand:
			return tidy(os.Stdin, os.Stdout)
		}
	}
	o, err := parseOptions(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "dragonbench: %v\n", err)
		return exitUsage
	}
	return measure(o)
}

// options are the flags.
type options struct {
	plan            plan
	load            string
	html, json, svg string
	markdown        bool
	backend         string
	command         string
}

const usage = `usage: dragonbench [flags]

Measures dragontls side by side with what it finds: HAProxy, nginx stream, stunnel, ghostunnel and the backend's own
TLS. Takes about ten minutes; writes a table here and a report to dragonbench.html.
  DRAGONTLS_BIN      binary to measure; else it is built
  DRAGONTLS_OLD_BIN  another build of it, measured beside: the peers "old dragontls paired" and "old dragontls shared"
  DRAGONFLY_BIN      Dragonfly to use as backend instead of redis-server
  GHOSTUNNEL_BIN     ghostunnel, if not in PATH

`

func parseOptions(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("dragonbench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	quick := flags.Bool("quick", false, "a first impression in a minute")
	full := flags.Bool("full", false, "every row and every peer: hours")
	only := flags.String("only", "", "comma-separated names or globs of rows and peers, such as 'get-64B-*,HAProxy,dragontls'")
	seconds := flags.Float64("seconds", 0, "length of a measured window (default 3; with --quick 0.4)")
	rounds := flags.Int("rounds", 0, "interleaved rounds (default 5; with --quick 3)")
	flags.StringVar(&o.load, "load", "own", "own; or redis-benchmark: measure with it too, where it can, to check our own")
	flags.StringVar(&o.backend, "backend", "", "comma-separated: redis-server; dragonfly, which DRAGONFLY_BIN names; model: with the times of a Dragonfly; slow: 100 us for each command; or model:BATCH,EACH (default dragonfly, if DRAGONFLY_BIN names one, or else redis-server)")
	flags.StringVar(&o.html, "html", "dragonbench.html", "file for the report; empty: none")
	flags.StringVar(&o.json, "json", "", "file for all samples")
	flags.StringVar(&o.svg, "svg", "", "file for a chart")
	flags.BoolVar(&o.markdown, "markdown", false, "print the section \"Figures\" of cmd/dragonbench/README.md instead of the table")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q: no such command\nthere are only flags: dragonbench --help", flags.Arg(0))
	case *quick && *full:
		return o, errors.New("--quick and --full: choose one")
	case o.load != "own" && o.load != "redis-benchmark":
		return o, fmt.Errorf("--load %q: own or redis-benchmark", o.load)
	case *seconds < 0 || *rounds < 0:
		return o, errors.New("--seconds and --rounds: above zero")
	}
	o.plan = defaultPlan()
	if *quick {
		o.plan = quickPlan()
	}
	if *full {
		o.plan = fullPlan()
	}
	if *seconds > 0 {
		o.plan.seconds = time.Duration(*seconds * float64(time.Second))
	}
	if *rounds > 0 {
		o.plan.rounds = *rounds
	}
	if *only != "" {
		if err := o.plan.narrow(*only); err != nil {
			return o, err
		}
	}
	o.command = strings.Join(append([]string{"go run ./cmd/dragonbench"}, args...), " ")
	return o, nil
}

// measure does a run and leaves nothing behind but the reports.
func measure(o options) int {
	if err := supported(); err != nil {
		fmt.Fprintf(os.Stderr, "dragonbench: %v\n", err)
		return exitFailed
	}
	m := thisMachine()
	for _, warning := range m.warnings() {
		fmt.Fprintf(os.Stderr, "WARNING: %s\n", warning)
	}
	// From before the first process on, a signal ends the run at once.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	k, err := newKeeper()
	if err != nil {
		fmt.Fprintf(os.Stderr, "dragonbench: %v\n", err)
		return exitFailed
	}
	defer k.close() // on panic too
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	interrupted := make(chan struct{})
	go func() { // ends with the process
		<-signals
		close(interrupted)
		cancel()
		k.close()
		fmt.Fprintln(os.Stderr, "\ninterrupted")
		os.Exit(exitInterrupted)
	}()
	if err := runAndReport(ctx, k, m, o); err != nil {
		select {
		case <-interrupted:
			select {} // the goroutine above ends the process
		default:
		}
		fmt.Fprintf(os.Stderr, "dragonbench: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// runAndReport measures in front of one backend after the other. If one of them fails, those before it are reported.
func runAndReport(ctx context.Context, k *keeper, m machine, o options) error {
	began := time.Now()
	if o.load != "own" {
		k.pin = newPinner()
	}
	programs, err := findBackends(o.backend, os.Getenv)
	if err != nil {
		return err
	}
	var benches []*bench
	var failed error
	for _, program := range programs {
		b, err := measureWith(ctx, k, program, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = fmt.Errorf("%s: %w", program.name(), err)
			break
		}
		benches = append(benches, b)
	}
	if len(benches) == 0 {
		return failed
	}
	return errors.Join(failed, newReport(o.plan, benches, m, time.Since(began), o.command).write(o))
}

// measureWith takes every row of the plan in front of one backend.
func measureWith(ctx context.Context, k *keeper, program backendProgram, o options) (*bench, error) {
	r, err := newRig(ctx, k, program)
	defer r.close()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "backend: %s; looking for peers\n", r.backendIs)
	if err := r.findPeers(ctx, o.plan.peers); err != nil {
		writeMissing(os.Stderr, r.missing)
		return nil, err
	}
	writeMissing(os.Stderr, r.missing)
	b := &bench{plan: o.plan, rig: r}
	b.plan.rows = slices.Clone(o.plan.rows) // titles may tell what was measured
	if o.load != "own" {
		if b.redisBenchmark, err = r.findRedisBenchmark(ctx); err != nil {
			return nil, err
		}
	}
	estimate := b.plan.estimate(r.peers)
	if b.redisBenchmark != "" {
		estimate *= 3 // each of its samples takes two runs
	}
	fmt.Fprintf(os.Stderr, "%d rows, %d peers, %d rounds of %v: about %v\n", len(b.plan.rows), len(r.peers), b.plan.rounds,
		b.plan.seconds, estimate.Round(time.Second))
	b.progress = newProgress(os.Stderr, estimate)
	defer b.stop()
	err = b.run(ctx)
	b.progress.clear()
	return b, err
}

// write writes every format that was asked for.
func (rep *report) write(o options) error {
	if o.markdown {
		rep.writeMarkdown(os.Stdout)
	} else {
		rep.writeText(os.Stdout)
	}
	var errs []error
	if o.json != "" {
		errs = append(errs, rep.writeJSON(o.json))
	}
	if o.svg != "" {
		errs = append(errs, rep.writeSVG(o.svg))
	}
	if o.html != "" {
		errs = append(errs, rep.writeHTML(o.html))
		fmt.Fprintf(os.Stderr, "report: %s\n", o.html)
	}
	return errors.Join(errs...)
}
