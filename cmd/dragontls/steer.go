package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dragontls/proxy/admin"
	"dragontls/proxy/admin/statuspage"
)

const (
	watchInterval   = 2 * time.Second
	sessionsPerPage = 1000 // the most that the admin listener gives at once
	clearScreen     = "\x1b[H\x1b[2J"
	exitsOfSteering = "Exit codes: 0 done, 1 failed or no answer, 2 misuse."
)

func (p program) killCommand() *cobra.Command {
	return p.steeringCommand(&cobra.Command{
		Use:   "kill IDENTITY|ADDRESS [--admin ADDR]",
		Short: "closes sessions of the running proxy",
		Long: `Closes the sessions whose identity or address it is, with the reason "killed", and says how many.
IDENTITY is as "dragontls sessions" shows it, such as cn:web-1; each * in it stands for any text
("dns:*.apps.internal"; "*" is all sessions). ADDRESS is an IP address, one with a port, or a network
(10.1.0.0/16). "dragontls sessions --identity IDENTITY" shows beforehand what an identity means.

The clients may connect again: revoke the certificate, or change ALLOW, to keep one out.`,
		Annotations: after("Exit codes: 0 closed at least one, 1 there was none, failed or no answer, 2 misuse."),
		Args:        oneArgument("IDENTITY or ADDRESS"),
	}, func(a adminClient, args []string) (int, error) {
		key := "identity"
		if isAddress(args[0]) {
			key = "address"
		}
		var answer admin.KillAnswer
		if err := a.into(&answer, http.MethodPost, query("/kill", key, args[0]), http.StatusOK); err != nil {
			return exitFailed, err
		}
		fmt.Fprintf(p.stdout, "closed %s\n", counted(answer.Killed, "session"))
		if answer.Killed == 0 {
			return exitFailed, nil
		}
		return exitOK, nil
	})
}

func (p program) reloadCommand() *cobra.Command {
	return p.steeringCommand(&cobra.Command{
		Use:   "reload [--admin ADDR]",
		Short: "has the running proxy read its files again",
		Long: `Has the running proxy read its files again, as SIGHUP does, and waits for the result. What has a fault is
named, and what it held before stays in use.`,
		Annotations: after("Exit codes: 0 all files are good, 1 some are not, or no answer, 2 misuse."),
		Args:        noArguments,
	}, func(a adminClient, _ []string) (int, error) {
		var answer admin.ReloadAnswer
		if err := a.into(&answer, http.MethodPost, "/reload", http.StatusOK, http.StatusInternalServerError); err != nil {
			return exitFailed, err
		}
		if !answer.OK {
			for line := range strings.Lines(answer.Error) {
				fmt.Fprintln(p.stderr, printable(strings.TrimSuffix(line, "\n")))
			}
			fmt.Fprintln(p.stderr, "not all files could be read: what they held before stays in use")
			return exitFailed, nil
		}
		if answer.Changed {
			fmt.Fprintln(p.stdout, "read all files: changes are in use")
		} else {
			fmt.Fprintln(p.stdout, "read all files: nothing has changed")
		}
		return exitOK, nil
	})
}

func (p program) drainCommand() *cobra.Command {
	return p.steeringCommand(&cobra.Command{
		Use:   "drain [--admin ADDR]",
		Short: "has the running proxy finish and end, as SIGTERM does",
		Long: `Has the running proxy finish and end, as SIGTERM does: /readyz fails at once, and after
DRAIN_DELAY the sessions end within DRAIN_TIMEOUT. It does not wait for that.
A service manager may start the proxy again.`,
		Annotations: after(exitsOfSteering),
		Args:        noArguments,
	}, func(a adminClient, _ []string) (int, error) {
		var answer admin.DrainAnswer
		if err := a.into(&answer, http.MethodPost, "/drain", http.StatusAccepted); err != nil {
			return exitFailed, err
		}
		fmt.Fprintln(p.stdout, "draining")
		return exitOK, nil
	})
}

func (p program) logLevelCommand() *cobra.Command {
	return p.steeringCommand(&cobra.Command{
		Use:         "log-level LEVEL [--admin ADDR]",
		Short:       "changes the log level of the running proxy",
		Long:        "Changes the log level of the running proxy until it ends: " + strings.Join(logLevels, ", ") + ".",
		Annotations: after(exitsOfSteering),
		ValidArgs:   logLevels,
		Args: func(c *cobra.Command, args []string) error {
			if err := oneArgument("LEVEL")(c, args); err != nil {
				return err
			}
			if !slices.Contains(logLevels, args[0]) {
				return misused(c, "unknown level %q%s", args[0], suggest(args[0], logLevels))
			}
			return nil
		},
	}, func(a adminClient, args []string) (int, error) {
		var answer admin.LevelAnswer
		if err := a.into(&answer, http.MethodPost, query("/log-level", "level", args[0]), http.StatusOK); err != nil {
			return exitFailed, err
		}
		fmt.Fprintf(p.stdout, "the log level is %s\n", printable(answer.Level))
		return exitOK, nil
	})
}

func (p program) sessionsCommand() *cobra.Command {
	var pattern string
	var asJSON bool
	c := p.steeringCommand(&cobra.Command{
		Use:   "sessions [--identity P] [--json] [--admin ADDR]",
		Short: "lists the open sessions of the running proxy",
		Long: `Lists the open sessions of the running proxy, by identity. Clients and their certificates
chose some of what is shown: it proves nothing.`,
		Annotations: after(exitsOfSteering),
		Args:        noArguments,
	}, func(a adminClient, _ []string) (int, error) {
		list, err := a.sessions(pattern)
		if err != nil {
			return exitFailed, err
		}
		if asJSON {
			return exitOK, writeJSON(p.stdout, list)
		}
		return exitOK, writeSessions(p.stdout, list, time.Now())
	})
	c.Flags().StringVar(&pattern, "identity", "", "`P`: only those whose identity it is; each * in it stands for any text, as for kill")
	c.Flags().BoolVar(&asJSON, "json", false, "prints a list of objects, as sessions.list of /status.json has them")
	return c
}

// sessions returns the open sessions that kill would close for pattern, or all if it is empty.
func (a adminClient) sessions(pattern string) ([]statuspage.Session, error) {
	picked := pick(func(string, string) bool { return true })
	if pattern != "" {
		var err error
		if picked, err = newPick(pattern, ""); err != nil {
			return nil, err
		}
	}
	list := []statuspage.Session{} // never null
	for page, pages := 1, 1; page <= pages; page++ {
		var st statuspage.Status
		// In the order of their IDs, since new sessions come last then, while others end.
		q := url.Values{"sort": {"id"}, "limit": {strconv.Itoa(sessionsPerPage)}, "page": {strconv.Itoa(page)}}
		if err := a.into(&st, http.MethodGet, "/status.json?"+q.Encode(), http.StatusOK); err != nil {
			return nil, err
		}
		if pages = st.Sessions.Pages; st.Sessions.Page != page {
			break // enough have ended meanwhile
		}
		list = append(list, st.Sessions.List...)
	}
	list = slices.DeleteFunc(list, func(s statuspage.Session) bool { return !picked(s.Identity, s.Address) })
	slices.SortStableFunc(list, func(a, b statuspage.Session) int { return strings.Compare(a.Identity, b.Identity) })
	return list, nil
}

func writeSessions(w io.Writer, list []statuspage.Session, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "IDENTITY\tADDRESS\tUSER\tLIBRARY\tTLS\tAGE\tCOMMANDS\tIN FLIGHT\tPLACE\tCERTIFICATE ENDS")
	for i := range list {
		s := &list[i]
		ends := "-"
		if s.NotAfter != nil {
			ends = s.NotAfter.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", cell(s.Identity), cell(s.Address), cell(s.User), cell(s.Library+" "+s.LibraryVersion),
			cell(s.TLSVersion), roughly(now.Sub(s.Since)), s.Commands, s.InFlight, cell(s.Place), ends)
	}
	return t.Flush()
}

// cell is text that others chose, for a table.
func cell(text string) string {
	if text = strings.TrimSpace(oneLine(text)); text == "" {
		return "-"
	}
	return text
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p program) statusCommand() *cobra.Command {
	var asJSON, watch bool
	c := p.steeringCommand(&cobra.Command{
		Use:   "status [--json] [--watch] [--admin ADDR]",
		Short: "shows how the running proxy does",
		Long: `Shows how the running proxy does, as the status page does: whether it is ready, what wants
attention and its cure, traffic, limits, certificates with the days that are left, the backend,
and what happened lately.`,
		Annotations: after("Exit codes: 0 ready, 1 not ready, failed or no answer, 2 misuse. --watch ends by a signal."),
		Args:        noArguments,
	}, func(a adminClient, _ []string) (int, error) {
		for {
			var st statuspage.Status
			err := a.into(&st, http.MethodGet, "/status.json?limit=1", http.StatusOK)
			if !watch && err != nil {
				return exitFailed, err
			}
			if watch && isTerminal(p.stdout) {
				fmt.Fprint(p.stdout, clearScreen)
			}
			switch {
			case err != nil: // it may be starting again
				_, err = fmt.Fprintln(p.stdout, err)
			case asJSON:
				err = writeJSON(p.stdout, &st)
			default:
				err = writeStatus(p.stdout, &st)
			}
			switch {
			case err != nil:
				return exitFailed, err
			case watch:
				time.Sleep(watchInterval)
			case st.Ready:
				return exitOK, nil
			default:
				return exitFailed, nil
			}
		}
	})
	c.Flags().BoolVar(&asJSON, "json", false, "prints what /status.json says, with one session")
	c.Flags().BoolVar(&watch, "watch", false, "shows it again every 2 seconds")
	return c
}
