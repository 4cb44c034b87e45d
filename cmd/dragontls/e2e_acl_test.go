//go:build unix

package main

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// aclUsers are those that cannot prove a lane, or no transactions on one.
var aclUsers = map[string][]string{
	"readwrite": {"+@read", "+@write"},
	"noexec":    {"+@all", "-exec"},
}

// aclSteps are what a client sends, each in one write. Their replies do not depend on time or on the connection.
var aclSteps = [][][]string{
	{{"SET", "a", "1"}},
	{{"GET", "a"}, {"INCR", "a"}, {"GET", "a"}},
	{{"MULTI"}},
	{{"SET", "b", "1"}},
	{{"EXEC"}},
	{{"GET", "b"}},
	{{"DISCARD"}},
	{{"MULTI"}, {"SET", "c", "1"}, {"GET", "c"}, {"EXEC"}},
	{{"GET", "c"}, {"DISCARD"}, {"GET", "c"}},
	{{"PING"}},
	{{"ECHO", "x"}, {"PING", "y"}},
	{{"SELECT", "1"}},
	{{"SET", "a", "of 1"}, {"GET", "a"}},
	{{"SELECT", "0"}, {"GET", "a"}},
	{{"HSET", "h", "f", "v"}, {"HGETALL", "h"}},
	{{"HELLO", "3"}},
	{{"HGETALL", "h"}, {"GET", "nothing"}},
	{{"CLIENT", "SETNAME", "n"}},
	{{"CLIENT", "GETNAME"}},
	{{"CLIENT", "SETINFO", "LIB-NAME", "x"}},
	{{"CLIENT", "MAINT_NOTIFICATIONS", "ON"}},
	{{"EVAL", "return redis.call('GET', KEYS[1])", "1", "a"}},
	{{"EVALSHA", strings.Repeat("0", 40), "0"}},
	{{"LPUSH", "l", "1"}, {"BLPOP", "l", "0"}, {"LLEN", "l"}},
	{{"WATCH", "a"}},
	{{"MULTI"}, {"INCR", "a"}, {"EXEC"}},
	{{"UNWATCH"}},
	{{"KEYS", "[ab]"}, {"EXISTS", "a"}},
	{{"INFO", "cluster"}},
	{{"CONFIG", "GET", "maxmemory"}},
	{{"ACL", "WHOAMI"}},
	{{"NOSUCH", "x"}},
	{{"GET"}},
	{{"GET", "a"}, {"NOSUCH", "x"}, {"GET", "a"}},
	{{"LPUSH", "a", "1"}},
	{{"SUBSCRIBE", "channel"}},
}

// aclReplies are what each step is answered.
func aclReplies(t *testing.T, conn net.Conn, r *bufio.Reader) (replies []string) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	for _, step := range aclSteps {
		var out, in strings.Builder
		for _, command := range step {
			out.WriteString(array(command...))
		}
		if _, err := io.WriteString(conn, out.String()); err != nil {
			t.Fatalf("%v: %v", step, err)
		}
		for range step {
			reply, err := readReply(r)
			if err != nil {
				t.Fatalf("%v: %v", step, err)
			}
			if strings.HasPrefix(reply, "%7 $server") { // HELLO's: its id is the connection's
				reply = "%7 $server"
			}
			in.WriteString(reply + "\n")
		}
		replies = append(replies, in.String())
	}
	return replies
}

func TestACLUsersWorkAsTheyDoDirectly(t *testing.T) {
	t.Parallel()
	var args []string
	for name, rules := range aclUsers {
		args = append(append(args, "--user", name, "on", ">"+name+"-secret", "~*", "&*"), rules...)
	}
	r := lockedRedis(t, args...)
	direct := func(t *testing.T, user string) []string {
		conn := r.dial(t)
		in := bufio.NewReader(conn)
		if _, err := io.WriteString(conn, array("AUTH", user, user+"-secret")); err != nil {
			t.Fatal(err)
		}
		if reply, err := readReply(in); reply != "+OK" {
			t.Fatalf("AUTH: %q %v", reply, err)
		}
		r.observe("FLUSHALL")
		return aclReplies(t, conn, in)
	}
	proxies := map[string]func(t *testing.T, user string) *instance{
		"BACKEND_USERNAME": func(t *testing.T, user string) *instance {
			return serving(t, r.url(), "BACKEND_MODE=shared", "BACKEND_USERNAME="+user, "BACKEND_PASSWORD="+user+"-secret").wantReady()
		},
		"USERS_FILE": func(t *testing.T, user string) *instance {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "pass"), []byte(user+"-secret"))
			write(t, filepath.Join(dir, "users.yaml"), []byte("users:\n  - match: [\"cn:client\"]\n    user: "+user+"\n    password_file: pass\n"))
			ca, err := pki.NewCA("acl")
			if err != nil {
				t.Fatal(err)
			}
			return ownCA(t, ca, r.url(), "BACKEND_MODE=shared", "USERS_FILE="+filepath.Join(dir, "users.yaml")).wantReady()
		},
	}
	for user := range aclUsers {
		for way, start := range proxies {
			t.Run(user+" by "+way, func(t *testing.T) {
				want := direct(t, user)
				p := start(t, user)
				conn := session(t, p)
				r.observe("FLUSHALL")
				for i, got := range aclReplies(t, conn, bufio.NewReader(conn)) {
					if got != want[i] {
						t.Errorf("%v: got\n%swant\n%s", aclSteps[i], got, want[i])
					}
				}
				if onLanes := p.metrics().sum("commands_total", "path", "lane"); (onLanes > 0) != (user == "noexec") {
					t.Errorf("%v commands rode lanes; %s", onLanes, ways(p.metrics()))
				}
				conn.Close()
				p.wantEnd()
			})
		}
	}
}
