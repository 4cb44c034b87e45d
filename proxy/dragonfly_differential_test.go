package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// What AUTH, HELLO, QUIT and RESET do on Dragonfly, and not on Redis, is seen in the commands around them: in which database
// and protocol these run. %k is a key, %n a number.
const dragonflyTemplates = `SET %k %n|SET %k %n|GET %k|GET %k|GET %k|INCR %k|APPEND %k %n|DEL %k|RPUSH l%k %n|LRANGE l%k 0 -1|HSET h%k f %n|HGETALL h%k|HGETALL nosuch|GET nosuch
SELECT %n|SELECT %n|SELECT 99|SELECT abc|HELLO|HELLO|HELLO 2|HELLO 3|HELLO 3|HELLO 3 SETNAME n|HELLO 4|HELLO 3 SETNAME|RESET|RESET x|RESET x|QUIT x
MULTI|MULTI|EXEC|EXEC|EXEC|DISCARD|WATCH %k|UNWATCH|GET|NOSUCH|EVAL return(redis.call('GET',KEYS[1])) 1 %k|EVAL redis.call('SELECT','%n') 0|ACL WHOAMI|PING|ECHO %n
CLIENT SETNAME n|CLIENT ID x|BLPOP l%k 0.001`

const authTemplates = `AUTH default x|AUTH other otherpw|AUTH other otherpw|AUTH other bad|AUTH two twopw|AUTH nobody x|AUTH a b c|HELLO 3 AUTH other otherpw|HELLO 2 AUTH two twopw SETNAME n
HELLO 3 AUTH nobody x|HELLO 3 AUTH other otherpw SETNAME|RESET|ACL WHOAMI|ACL WHOAMI`

// accounts are ways in which a client comes to its user.
var accounts = []struct {
	name       string
	injected   bool // dragontls authenticates its connections as web
	clientAuth bool // the client may authenticate itself
	deny       []string
}{
	{name: "the client's own", clientAuth: true},
	{name: "web", injected: true},
	{name: "web that may be others", injected: true, clientAuth: true},
	{name: "web without reset", injected: true, deny: []string{"reset"}},
	{name: "web without reset and auth", injected: true, deny: []string{"reset", "auth"}},
	{name: "web without reset, auth, client and hello", injected: true, deny: []string{"reset", "auth", "client", "hello"}},
}

// The same seeded transcripts are played against a scripted Dragonfly, one command at a time, and through the proxy against
// another one, in pipelines that are cut anywhere. Replies and databases must be the same. TEST_SEED repeats a run.
func TestRepliesAreThoseOfDragonfly(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	eachMode(t, func(t *testing.T, m mode) {
		for _, release := range []proxytest.Release{proxytest.V1_40, proxytest.August2026} {
			for i, account := range accounts {
				t.Run(fmt.Sprintf("%s, release %d", account.name, release), func(t *testing.T) {
					t.Parallel()
					t.Logf("TEST_SEED=%d", seed)
					d := newDragonflyDifferential(t, m, release, i)
					for n := range rounds(t, 15) {
						d.play(seed, uint64(n))
						if t.Failed() {
							return
						}
					}
					if n := d.h.closedFor(closeReset) + d.h.closedFor(closeBackendError) + d.h.closedFor(closeInternalError); n > 0 {
						t.Errorf("sessions closed: %v", d.h.Stats().SessionsClosed)
					}
				})
			}
		}
	})
}

type dragonflyDifferential struct {
	t               *testing.T
	direct, proxied *proxytest.Dragonfly
	h               *harness
	injected        bool
	templates       []string
}

func newDragonflyDifferential(t *testing.T, m mode, release proxytest.Release, account int) *dragonflyDifferential {
	a := accounts[account]
	opt := proxytest.Options{Release: release, Users: []proxytest.User{
		{Name: "web", Password: "webpw", Deny: a.deny}, {Name: "other", Password: "otherpw", Deny: []string{"reset"}}, {Name: "two", Password: "twopw", Database: 2},
	}}
	templates := dragonflyTemplates
	if a.clientAuth {
		templates += "\n" + authTemplates
	}
	change := func(*Config) {}
	if a.injected {
		opt.RequirePass = "top"
		user := User{Name: "web", Password: secret("webpw"), ClientAuth: a.clientAuth}
		change = mappedTo(&judgement{users: map[string]User{"client": user}})
	}
	d := &dragonflyDifferential{t: t, direct: dragonfly(t, opt), proxied: dragonfly(t, opt), injected: a.injected}
	d.templates = strings.FieldsFunc(templates, func(r rune) bool { return r == '|' || r == '\n' })
	d.h = m.start(t, d.proxied.Addr(), func(c *Config) { swept(c); change(c); c.stayInterval = time.Millisecond })
	return d
}

// play plays one transcript on both sides, and compares.
func (d *dragonflyDifferential) play(seed, n uint64) {
	r := rand.New(rand.NewPCG(seed, n))
	transcript := [][]string{{"FLUSHALL"}, {"SELECT", "1"}}
	for range r.IntN(40) {
		template := d.templates[r.IntN(len(d.templates))]
		var args []string
		for _, a := range strings.Split(template, " ") {
			a = strings.ReplaceAll(strings.ReplaceAll(a, "%k", fmt.Sprint("k", r.IntN(3))), "%n", fmt.Sprint(r.IntN(3)))
			args = append(args, strings.NewReplacer("return(", "return ", "]))", "])").Replace(a))
		}
		transcript = append(transcript, args)
	}
	if r.IntN(2) == 0 {
		transcript = append(transcript, []string{"QUIT"}, []string{"EXEC"}) // which runs it, or comes behind the end
	}
	direct, proxied := d.playDirect(transcript), d.playProxied(transcript, r)
	if !slices.Equal(direct, proxied) {
		i := 0
		for i < len(direct) && i < len(proxied) && direct[i] == proxied[i] {
			i++
		}
		d.t.Errorf("transcript %d: %q\ndirect  %q\nproxied %q", n, transcript[:min(i+1, len(transcript))], direct[:min(i+1, len(direct))], proxied[:min(i+1, len(proxied))])
	}
	for db := range 4 {
		for k := range 3 {
			key := fmt.Sprint("k", k)
			a, _ := d.direct.String(db, key)
			if b, _ := d.proxied.String(db, key); a != b {
				d.t.Errorf("transcript %d: %q\ndatabase %d, key %s: %q directly, and %q", n, transcript, db, key, a, b)
			}
		}
	}
}

func (d *dragonflyDifferential) playDirect(transcript [][]string) (replies []string) {
	w := dialPlain(d.t, d.direct.Addr())
	defer w.Close()
	authenticate := func() {
		if d.injected {
			w.do("+OK\r\n", "AUTH", "web", "webpw")
		}
	}
	authenticate()
	for _, args := range transcript {
		_, _ = w.Write([]byte(cmd(args...)))
		reply, ended := w.frame()
		replies = append(replies, connectionID.ReplaceAllString(reply, ""))
		if ended {
			return replies
		}
		if reply == "+RESET\r\n" {
			authenticate()
		}
	}
	return replies
}

func (d *dragonflyDifferential) playProxied(transcript [][]string, r *rand.Rand) (replies []string) {
	w := d.h.dial()
	defer w.Close()
	for len(transcript) > 0 {
		n := 1 + r.IntN(len(transcript))
		var sent []byte
		for _, args := range transcript[:n] {
			sent = append(sent, cmd(args...)...)
		}
		for len(sent) > 0 {
			k := 1 + r.IntN(len(sent))
			_, _ = w.Write(sent[:k])
			sent = sent[k:]
		}
		for range n {
			reply, ended := w.frame()
			replies = append(replies, connectionID.ReplaceAllString(reply, ""))
			if ended {
				return replies
			}
		}
		transcript = transcript[n:]
		d.h.ahead.Add(2 * time.Millisecond) // beyond stayInterval: the session may leave its own connection
	}
	return replies
}
