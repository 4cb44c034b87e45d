package command

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"dragontls/proxy/resp"
)

// auditedNames are the commands that were always answered by exactly one well-formed reply, even with CR LF in any argument:
// 216 commands in 1.8 million calls of Dragonfly v1.40.1 and Redis 7.0.15.
var auditedNames = strings.Fields(`
	APPEND BF.ADD BF.EXISTS BF.INFO BF.LOADCHUNK BF.MADD BF.MEXISTS BF.RESERVE BF.SCANDUMP BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS CF.ADD CF.ADDNX
	CF.COMPACT CF.COUNT CF.DEL CF.EXISTS CF.INFO CF.INSERT CF.INSERTNX CF.MEXISTS CF.RESERVE CL.THROTTLE CMS.INCRBY CMS.INFO CMS.INITBYDIM CMS.INITBYPROB
	CMS.MERGE CMS.QUERY COPY DBSIZE DECR DECRBY DEL DIGEST DUMP ECHO EXISTS EXPIRETIME FIELDEXPIRE FIELDTTL GEODIST GEOHASH GEOPOS GEORADIUS
	GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HEXPIRE HGET HGETALL HGETEX HINCRBY
	HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPEXPIRETIME HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS INCR INCRBY INCRBYFLOAT JSON.ARRAPPEND
	JSON.ARRINDEX JSON.ARRINSERT JSON.ARRLEN JSON.ARRPOP JSON.ARRTRIM JSON.CLEAR JSON.DEL JSON.FORGET JSON.GET JSON.MERGE JSON.MGET JSON.MSET
	JSON.NUMINCRBY JSON.NUMMULTBY JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.SET JSON.STRAPPEND JSON.STRLEN JSON.TOGGLE JSON.TYPE KEYS LINDEX LINSERT LLEN
	LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MGET MOVE MSET MSETNX PERSIST PEXPIRETIME PFADD PFCOUNT PFMERGE PING PREPEND PSETEX PTTL
	PUBLISH RANDOMKEY RENAME RENAMENX RM RPOP RPOPLPUSH RPUSH RPUSHX SADD SADDEX SCAN SCARD SDIFF SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE SHRINK SINTER
	SINTERCARD SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SORT SORT_RO SPOP SPUBLISH SRANDMEMBER SREM SSCAN STICK STRLEN SUBSTR SUNION SUNIONSTORE
	TIME TOPK.ADD TOPK.COUNT TOPK.INCRBY TOPK.INFO TOPK.LIST TOPK.QUERY TOPK.RESERVE TOUCH TTL TYPE UNLINK XACK XADD XCLAIM XDEL XLEN XRANGE XREVRANGE
	XSETID XTRIM ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANK ZREM
	ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANK ZSCORE ZUNION ZUNIONSTORE`)

// quotingNames were answered by one reply too, unless an argument held CR or LF, which an error quotes as it is.
var quotingNames = strings.Fields(`EXPIRE PEXPIRE EXPIREAT PEXPIREAT ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZREVRANGEBYLEX ZRANGESTORE
	ZRANDMEMBER GEOADD DELEX XPENDING XAUTOCLAIM XGROUP|SETID XGROUP|CREATECONSUMER XGROUP|DELCONSUMER XINFO|CONSUMERS`)

// classed returns the sorted names and NAME|SUBs of these classes.
func classed(classes ...Class) (names []string) {
	c := theCatalogue()
	for name, r := range c.rows {
		if slices.Contains(classes, r.class) {
			names = append(names, name)
		}
		for sub, s := range r.subs {
			if slices.Contains(classes, s.class) {
				names = append(names, name+"|"+sub)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestClassOfEveryLineIsAWord(t *testing.T) {
	lines := 0
	for line := range strings.Lines(commandsText) {
		if line[0] == '#' || line[0] == '@' {
			continue
		}
		lines++
		if f := strings.Fields(line); len(f) != 4 || !slices.Contains(classNames, f[3]) {
			t.Errorf("%q: want a name, two lists of categories and a class", line)
		}
	}
	if lines < 440 {
		t.Errorf("%d lines", lines)
	}
	for class, name := range classNames {
		if got := classNamed(name); got != Class(class) || got.String() != name {
			t.Errorf("%s is read as %s", name, got)
		}
	}
	if classNamed("qiuet") != Unknown {
		t.Error("a misspelt class is not unknown")
	}
}

// Every command that may ride a lane was audited, and every audited command may ride one unless it is slow by its nature.
func TestClassOfLanesIsWhatWasAudited(t *testing.T) {
	want := slices.DeleteFunc(slices.Clone(auditedNames), func(name string) bool {
		return slices.Contains([]string{"KEYS", "SCAN", "SORT", "SORT_RO", "RM"}, name)
	})
	if len(auditedNames) != 216 {
		t.Errorf("%d audited", len(auditedNames))
	}
	if got := classed(Quiet, Unbounded); !slices.Equal(got, sorted(want)) {
		t.Errorf("quiet and unbounded: got %q\nwant %q", got, want)
	}
	if got := classed(Plain, UnboundedPlain); !slices.Equal(got, sorted(quotingNames)) {
		t.Errorf("plain and unbounded-plain: got %q\nwant %q", got, quotingNames)
	}
}

func TestClassesThatChangeASessionAreTheseAlone(t *testing.T) {
	for class, want := range map[Class]string{
		Script: "EVAL EVALSHA EVALSHA_RO EVAL_RO",
		State:  "ASKING CLIENT|SETINFO CLIENT|SETNAME HELLO QUIT READONLY READWRITE RESET SELECT",
		Sticky: "DISCARD EXEC MULTI UNWATCH WATCH",
		Life: `ADDREPLICAOF AUTH CLIENT|REPLY CLIENT|TRACKING DEBUG DFLY DFLYCLUSTER DFLYMIGRATE FAILOVER FCALL FCALL_RO MONITOR PSUBSCRIBE PSYNC
			PUNSUBSCRIBE REPLCONF REPLICAOF REPLTAKEOVER SCRIPT|DEBUG SHUTDOWN SLAVEOF SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC UNSUBSCRIBE`,
	} {
		if got := classed(class); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: got %q\nwant %q", class, got, want)
		}
	}
	for _, name := range classed(Unknown) {
		switch base, _, isSub := strings.Cut(name, "|"); {
		case isSub && base == "CLIENT", slices.Contains([]string{"ACL", "CLIENT", "CLUSTER", "FUNCTION", "MODULE", "SCRIPT"}, name):
		default:
			t.Errorf("%s is unknown", name)
		}
	}
	for name, trait := range traits {
		c := theCatalogue()
		if class := c.row(name).class; trait != 0 && class <= UnboundedPlain && class != Unknown {
			t.Errorf("%s rides a lane and is treated specially", name)
		}
	}
}

func TestClassOfEveryCommandOfBothServersIsKnown(t *testing.T) {
	text, err := os.ReadFile("testdata/commandnames.txt")
	if err != nil {
		t.Fatal(err)
	}
	c := theCatalogue()
	n := 0
	for line := range strings.Lines(string(text)) {
		if line[0] == '#' {
			continue
		}
		for full := range strings.FieldsSeq(line) {
			n++
			name, sub, isSub := strings.Cut(full, "|")
			if r := c.rows[name]; r == nil || isSub && r.subs[sub] == nil {
				t.Errorf("%s has no line", full)
			}
		}
	}
	if n < 500 {
		t.Errorf("%d names", n)
	}
}

func TestClassOfReadsNameAndSubcommandInAnyCase(t *testing.T) {
	table := newTable(t, "MY.MODULE")
	for _, c := range []struct {
		name, sub string
		want      Class
	}{
		{"get", "k", Quiet}, {"GeT", "SETNAME", Quiet}, {"EXPIRE", "k", Plain}, {"hgetall", "", Unbounded}, {"zrange", "z", UnboundedPlain},
		{"info", "", Own}, {"blpop", "k", Own}, {"xread", "BLOCK", Own}, {"eval", "return 1", Script}, {"hello", "3", State},
		{"client", "setname", State}, {"CLIENT", "SetInfo", State}, {"client", "reply", Life}, {"client", "TRACKING", Life},
		{"client", "id", Unknown}, {"client", "maint_notifications", Unknown}, {"client", "", Unknown}, {"client", "setname x", Unknown},
		{"client", strings.Repeat("x", 100), Unknown}, {"client", "setnam\xe9", Unknown}, {"client", "setname\x00", Unknown},
		{"xgroup", "createconsumer", Plain}, {"xgroup", "create", Own}, {"xgroup", "nosuch", Own}, {"xinfo", "Consumers", UnboundedPlain},
		{"script", "load", Own}, {"script", "debug", Life}, {"script", "nosuch", Unknown}, {"object", "encoding", Own}, {"acl", "whoami", Own},
		{"multi", "", Sticky}, {"subscribe", "c", Life}, {"nosuch", "", Unknown}, {"my.module", "x", Unknown}, {"ft.search", "i", Unknown},
		{"", "", Unknown}, {strings.Repeat("x", 100), "", Unknown},
	} {
		var sub []byte
		if c.sub != "" {
			sub = []byte(c.sub)
		}
		name := []byte(c.name)
		cmd, _, _ := table.Lookup(name)
		if got := cmd.Class(sub); got != c.want {
			t.Errorf("%s %q: got %s, want %s", c.name, c.sub, got, c.want)
		}
		if n := testing.AllocsPerRun(100, func() {
			cmd, _, _ := table.Lookup(name)
			cmd.Class(sub)
		}); n != 0 {
			t.Errorf("%s %q: %v allocations", c.name, c.sub, n)
		}
	}
}

var lineBreaks = [][]string{
	{"GET", "k"}, {"PING"}, {""}, {"EXPIRE", "k", "10", "x\r\n+INJ"}, {"EXPIRE", "\r", "1"}, {"EXPIRE", "\n", "1"}, {"EXPIRE", "k", "\n\r"},
	{"EXPIRE", "k", "x\r\n"}, {"ZRANGE", "", "", "\x00\xff"}, {"ZRANGE", "$5", "*2", "\\r\\n"}, {"GEOADD", "k", "\r\n$1\r\nx\r\n", "1", "2"}, {"\n", "x"},
	{"GEOADD", strings.Repeat("x", 70000) + "\n"}, {"GEOADD", strings.Repeat("x", 70000)},
}

func TestLineBreakIsFoundInArgumentsAlone(t *testing.T) {
	for _, args := range lineBreaks {
		frame := resp.AppendCommand(nil, args...)
		want := strings.ContainsAny(strings.Join(args, ""), "\r\n")
		if got := holdsLineBreak(frame, len(args)); got != want {
			t.Errorf("%.60q: got %v", args, got)
		}
		if n := testing.AllocsPerRun(100, func() { holdsLineBreak(frame, len(args)) }); n != 0 {
			t.Errorf("%.60q: %v allocations", args, n)
		}
	}
}

// For any command, counting line breaks in its canonical frame gives the same result as looking at each argument.
func FuzzLineBreak(f *testing.F) {
	for _, args := range lineBreaks {
		f.Add(resp.AppendCommand(nil, args...))
	}
	f.Add([]byte("EXPIRE k 10 x\n"))
	f.Add([]byte("*+1\r\n$04\r\n\r\r\n\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var c resp.Commands
		n, complete, err := c.Next(in)
		if err != nil || !complete || c.Args() == 0 {
			return
		}
		frame := c.AppendCanonical(nil, in[:n])
		want := slices.ContainsFunc(resp.SplitArgs(frame, nil), func(arg []byte) bool { return bytes.ContainsAny(arg, "\r\n") })
		if got := holdsLineBreak(frame, c.Args()); got != want {
			t.Fatalf("%q: got %v", frame, got)
		}
	})
}

func BenchmarkLineBreak(b *testing.B) {
	frame := resp.AppendCommand(nil, "EXPIRE", "session:0123456789", "3600", "NX")
	b.ReportAllocs()
	for b.Loop() {
		holdsLineBreak(frame, 4)
	}
}

func BenchmarkClassOf(b *testing.B) {
	table := newTable(b)
	for _, c := range []string{"GET", "CLIENT"} {
		cmd, _, _ := table.Lookup([]byte(c))
		b.Run(c, func(b *testing.B) {
			b.ReportAllocs()
			sub := []byte("SETNAME")
			for b.Loop() {
				cmd.Class(sub)
			}
		})
	}
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}
