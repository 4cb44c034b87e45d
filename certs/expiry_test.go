package certs

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dragontls/certs/pki"

	"github.com/rs/zerolog"
)

const daily = 24 * time.Hour

// bubbleEpoch is when time begins in each bubble (testing/synctest).
var bubbleEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// spoken is what a watcher said and when, since the epoch.
type spoken struct {
	after time.Duration
	Expiry
}

// watchExpiry runs in a bubble, whose clock stands still while anything runs. The
// returned func lets time pass, until that long after the epoch, and returns what
// was said meanwhile.
func (f *fixture) watchExpiry(o ExpiryOptions) (until func(time.Duration) []spoken) {
	var mu sync.Mutex
	var said []spoken
	o.Log = zerolog.New(f.log)
	o.Notify = func(e Expiry) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, spoken{time.Since(bubbleEpoch), e})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		WatchExpiry(ctx, o)
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	return func(d time.Duration) []spoken {
		time.Sleep(d - time.Since(bubbleEpoch))
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		got := said
		said = nil
		return got
	}
}

func (f *fixture) wantSpoken(got []spoken, file string, after ...time.Duration) {
	f.t.Helper()
	var times []time.Duration
	for _, s := range got {
		if strings.HasSuffix(s.File, file) {
			times = append(times, s.after)
		}
	}
	if !slices.Equal(times, after) {
		f.t.Errorf("%s was spoken of after %v, want %v", file, times, after)
	}
}

func (f *fixture) writeServer(name string, validity time.Duration) pemPair {
	f.t.Helper()
	now := time.Now()
	p := f.issue(f.ca, pki.Leaf{CN: name, DNS: []string{"localhost"}, Server: true, NotBefore: now, NotAfter: now.Add(validity)})
	f.writePair(name, p)
	return p
}

func TestExpiryIsSaidAtTheThresholdThenDailyThenAsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		p := f.writeServer("server", 90*daily)
		until := f.watchExpiry(ExpiryOptions{Store: f.open(), Warning: 3 * daily})
		f.wantSpoken(until(87*daily-1), "")
		got := until(87 * daily)
		f.wantSpoken(got, "", 87*daily)
		if e := got[0]; e.Role != "server" || e.File != f.path("server.crt") || e.Serial != p.serial(t) || e.Left != 3*daily || e.Cure == "" {
			t.Errorf("got %+v", e)
		}
		if f.log.count(`"level":"warn"`) != 1 || f.log.count(`"level":"error"`) != 0 || f.log.count(`"left":"72h0m0s"`) != 1 {
			t.Errorf("log: %s", f.log.buf.String())
		}
		f.wantSpoken(until(89*daily), "", 88*daily, 89*daily)
		// It is valid up to and including the moment of its end.
		f.wantSpoken(until(90*daily), "")
		got = until(92 * daily)
		f.wantSpoken(got, "", 90*daily+1, 91*daily+1)
		if got[0].Left >= 0 || f.log.count(`"level":"error"`) != 2 || f.log.count("validity has ended") != 2 {
			t.Errorf("got %+v, log: %s", got, f.log.buf.String())
		}
	})
}

func TestExpiryBetweenTwoDaysIsSaidAtItsMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writeServer("server", 90*time.Hour)
		until := f.watchExpiry(ExpiryOptions{Store: f.open(), Warning: 25 * time.Hour})
		f.wantSpoken(until(100*time.Hour), "", 65*time.Hour, 89*time.Hour, 90*time.Hour+1)
	})
}

func TestExpiryOfWhatIsReplacedFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writeServer("server", 30*daily)
		s := f.open()
		until := f.watchExpiry(ExpiryOptions{Store: s})
		f.wantSpoken(until(21*daily), "", 20*daily, 21*daily) // a third of its validity
		f.writeServer("server", 60*daily)
		if changed, err := s.Reload(); !changed || err != nil {
			t.Fatalf("reload: %v, %v", changed, err)
		}
		f.wantSpoken(until(51*daily), "")
		f.wantSpoken(until(61*daily), "", 61*daily)
	})
}

func TestExpiryOfWhatEndsSoonIsSaidWhenItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.open()
		until := f.watchExpiry(ExpiryOptions{Store: s})
		f.wantSpoken(until(time.Minute), "")
		now := time.Now()
		f.writePair("server", f.issue(f.ca, pki.Leaf{CN: "short", Server: true, NotBefore: now.Add(-8 * time.Hour), NotAfter: now.Add(time.Hour)}))
		if _, err := s.Reload(); err != nil {
			t.Fatal(err)
		}
		reloaded := time.Since(bubbleEpoch)
		f.wantSpoken(until(time.Minute+time.Second), "server.crt", reloaded)
	})
}

func TestExpiryFollowsTheBackendsFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		write := func(validity time.Duration) {
			now := time.Now()
			f.writePair("backend", f.issue(f.ca, pki.Leaf{CN: "proxy", Client: true, NotBefore: now.Add(-validity), NotAfter: now.Add(validity)}))
		}
		write(40 * daily)
		client, err := OpenClient(ClientOptions{CAFile: f.path("ca.crt"), CertFile: f.path("backend.crt"), KeyFile: f.path("backend.key"), Log: zerolog.New(f.log)})
		f.must(err)
		until := f.watchExpiry(ExpiryOptions{Store: f.open(), Client: client, Warning: 30 * daily})
		f.wantSpoken(until(time.Minute), "")
		var faults []error
		client.OnFault(func(err error) { faults = append(faults, err) })
		write(time.Hour)
		if _, err := client.Reload(); err != nil {
			t.Fatal(err)
		}
		f.wantSpoken(until(2*time.Minute), "") // its last third begins after 21
		write(time.Hour)
		f.wantSpoken(until(30*time.Minute), "backend.crt", 21*time.Minute)
		if _, err := client.Reload(); err != nil {
			t.Fatal(err)
		}
		reloaded := time.Since(bubbleEpoch)
		f.wantSpoken(until(2*time.Hour), "backend.crt", reloaded, 62*time.Minute+1)
		f.write("backend.key", nil)
		for range 2 {
			_, _ = client.files.Reload(false)
		}
		if len(faults) != 1 || reasonOf(faults[0]) != ReasonParse {
			t.Errorf("told of %v, want one fault", faults)
		}
	})
}

func TestExpiryOfEverythingInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writeServer("server", 60*daily)
		f.writeServer("second", 90*daily)
		f.opts.CertFiles = append(f.opts.CertFiles, f.path("second.crt"))
		f.opts.KeyFiles = append(f.opts.KeyFiles, f.path("second.key"))
		sub, err := f.ca.Intermediate("sub")
		f.must(err)
		now := time.Now()
		f.writePair("backend", f.issue(sub, pki.Leaf{CN: "proxy", Client: true, NotBefore: now, NotAfter: now.Add(120 * daily)}))
		f.write("backend-ca.crt", f.ca.PEM())
		s := f.open()
		client, err := OpenClient(ClientOptions{CAFile: f.path("backend-ca.crt"), CertFile: f.path("backend.crt"), KeyFile: f.path("backend.key"),
			Log: zerolog.New(f.log)})
		f.must(err)
		next := *s.Snapshot()
		next.CRLs = []CRL{{File: "ca.crl", Issuer: "CN=root", ThisUpdate: now, NextUpdate: now.Add(7 * daily)},
			{File: "endless.crl", Issuer: "CN=root", ThisUpdate: now}}
		s.snapshot.Store(&next)
		until := f.watchExpiry(ExpiryOptions{Store: s, Client: client})
		first := map[string]time.Duration{}
		for _, s := range until(60 * daily) {
			if _, ok := first[s.File]; !ok {
				first[s.File] = s.after
			}
		}
		want := map[string]time.Duration{"ca.crl": 7*daily - 56*time.Hour, f.path("server.crt"): 40 * daily, f.path("second.crt"): 60 * daily}
		if !maps.Equal(first, want) {
			t.Errorf("first spoken of after\n%v, want\n%v", first, want)
		}
		roles := map[string]bool{}
		for _, s := range until(10 * 365 * daily) {
			roles[s.Role] = true
			if s.File == "endless.crl" {
				t.Fatal("a CRL without an end ended")
			}
			if s.Cure == "" {
				t.Fatalf("no cure: %+v", s)
			}
		}
		for _, role := range []string{"server", "client_ca", RoleCRL, "backend_ca", "backend_client", "backend_client_chain"} {
			if !roles[role] {
				t.Errorf("role %s was never spoken of", role)
			}
		}
	})
}

func TestFaultHookIsToldOncePerFaultAndOfItsEnd(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	var told []string
	s.OnFault(func(err error) {
		if err == nil {
			told = append(told, "over")
		} else {
			told = append(told, reasonOf(err))
		}
	})
	reload := func(forced bool) { _, _ = s.files.Reload(forced) }
	good, err := os.ReadFile(f.path("server.crt"))
	f.must(err)
	reload(true)
	f.must(os.Remove(f.path("server.crt")))
	reload(false)
	reload(false)
	reload(true) // logged again, but it is the same fault
	f.write("server.crt", good[:len(good)/2])
	reload(false)
	f.write("server.crt", good)
	reload(false)
	reload(false)
	f.write("server.key", f.pair().key)
	reload(false)
	f.writePair("server", f.pair())
	reload(false)
	if want := []string{ReasonUnreadable, ReasonParse, "over", ReasonMismatch, "over"}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}

func TestExpiryOfACRLThatAnotherOneFollowsFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writeServer("server", 365*daily)
		now := time.Now()
		list := func(ca *pki.CA, days int) []byte {
			return f.crl(ca, pki.CRLOptions{ThisUpdate: now, NextUpdate: now.Add(time.Duration(days) * daily)})
		}
		f.withCRL(slices.Concat(list(f.ca, 3), list(f.ca, 30), list(newCA(t, "removed"), 3)))
		store := f.open()
		until := f.watchExpiry(ExpiryOptions{Store: store, Warning: daily})
		var issuers []string
		for _, s := range until(4*daily + time.Hour) {
			issuers = append(issuers, s.Name)
		}
		// Ahead, at the end and daily; a removed CA may be one that clients send.
		if want := []string{"CN=removed", "CN=removed", "CN=removed"}; !slices.Equal(issuers, want) {
			t.Errorf("spoke of %q, want %q", issuers, want)
		}
		f.write("ca.crl", list(f.ca, 3))
		f.reload(store)
		reloaded := time.Since(bubbleEpoch)
		f.wantSpoken(until(4*daily+2*time.Hour), "ca.crl", reloaded)
	})
}
