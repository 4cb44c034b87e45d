package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// One seeded transcript after the other is played against one redis-server directly and, through the proxy, against
// a second one like it; the bytes that come back must be the same. TEST_SEED repeats a run,
// TEST_TIME makes it longer.
func TestRepliesAreTheSameAsWithoutTheProxy(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	// Small encodings keep their order; a hash table's order depends on a random seed of each server.
	args := []string{"--hash-max-listpack-value", "1000000000", "--hash-max-listpack-entries", "1000000",
		"--zset-max-listpack-value", "1000000000", "--zset-max-listpack-entries", "1000000", "--set-max-intset-entries", "1000000"}
	direct := redisServer(t, args...)
	h := start(t, redisServer(t, args...), swept)
	d := &differential{t: t, direct: direct, proxied: h}
	played := 0
	for n := range rounds(t, 20) {
		played++
		g := newGenerator(seed, uint64(n))
		tr := g.transcript()
		a, b := d.play(tr)
		if bytes.Equal(a, b) {
			continue
		}
		found := firstDifference(a, b)
		tr = d.shrink(tr)
		if a, b = d.play(tr); !bytes.Equal(a, b) {
			found = firstDifference(a, b) // else it comes and goes: show what was seen
		}
		t.Fatalf("TEST_SEED=%d, transcript %d, shortest that differs:\n%s\n%s", seed, n, tr, found)
	}
	t.Logf("TEST_SEED=%d: %d transcripts", seed, played)
}

func testSeed(t testing.TB) uint64 {
	if v := os.Getenv("TEST_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return rand.Uint64() % 1e9
}

// rounds are 0, 1 and so on: n of them, or with TEST_TIME as many as begin in that time.
func rounds(t testing.TB, n int) iter.Seq[int] {
	long := testTime(t, 0)
	end := time.Now().Add(long)
	return func(yield func(int) bool) {
		for i := 0; (i < n || long > 0 && time.Now().Before(end)) && yield(i); i++ {
		}
	}
}

func testTime(t testing.TB, d time.Duration) time.Duration {
	if v := os.Getenv("TEST_TIME"); v != "" {
		long, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		return long
	}
	return d
}

// ending says how a transcript ends. Before each, RESET leads back from every mode.
type ending int

const (
	endEcho ending = iota
	endQuit
	endProtocolError
	endHalfClose
	endings
)

// transcript is what one client sends.
type transcript struct {
	commands [][]byte
	end      ending
	broken   string // endProtocolError: the last bytes
	cutSeed  uint64 // where the bytes are cut into writes
}

func (tr transcript) String() string {
	var b strings.Builder
	for _, c := range tr.commands {
		s := strconv.Quote(string(c))
		if len(s) > 200 {
			s = fmt.Sprintf("%s... (%d bytes)", s[:200], len(c))
		}
		b.WriteString("  > " + s + "\n")
	}
	fmt.Fprintf(&b, "  ending %d %q", tr.end, tr.broken)
	return b.String()
}

const sentinel = "the end of this transcript"

func (tr transcript) bytes() []byte {
	var b []byte
	for _, c := range tr.commands {
		b = append(b, c...)
	}
	b = append(b, cmd("RESET")...)
	switch tr.end {
	case endQuit:
		b = append(b, cmd("quit")...)
	case endProtocolError:
		b = append(b, tr.broken...)
	default:
		b = append(b, cmd("ECHO", sentinel)...)
	}
	return b
}

type differential struct {
	t       *testing.T
	direct  string
	proxied *harness
}

var connectionID = regexp.MustCompile(`\$2\r\nid\r\n:\d+\r\n`)

// play returns both streams, what must differ taken out.
func (d *differential) play(tr transcript) (direct, proxied []byte) {
	a := dialPlain(d.t, d.direct)
	direct = d.run(a, tr, false)
	b := d.proxied.dial()
	proxied = d.run(b, tr, true)
	if tr.end == endProtocolError {
		// Redis and Dragonfly word it differently; dragontls answers in Dragonfly's words.
		direct, proxied = cutLastLine(direct, "-ERR Protocol error: "), cutLastLine(proxied, "-ERR Protocol error: -ERR Protocol error: ")
	}
	return connectionID.ReplaceAll(direct, []byte("$2\r\nid\r\n:0\r\n")), connectionID.ReplaceAll(proxied, []byte("$2\r\nid\r\n:0\r\n"))
}

func cutLastLine(b []byte, prefix string) []byte {
	i := bytes.LastIndex(bytes.TrimSuffix(b, []byte("\r\n")), []byte("\r\n"))
	if i < 0 || !bytes.HasPrefix(b[i+2:], []byte(prefix)) {
		return append(slices.Clone(b), "(no protocol error)"...)
	}
	return append(b[:i+2:i+2], "protocol error"...)
}

func (d *differential) run(w *wire, tr transcript, halfClose bool) []byte {
	defer w.Close()
	// A transcript begins with the same data on both sides; what this costs is answered before it begins.
	w.send(cmd("FLUSHALL") + cmd("SCRIPT", "FLUSH") + cmd("FUNCTION", "FLUSH"))
	w.want("+OK\r\n+OK\r\n+OK\r\n")
	sent := make(chan struct{})
	go func() { // ends when all is sent or w closed
		defer close(sent)
		r := rand.New(rand.NewPCG(tr.cutSeed, 1))
		for b := tr.bytes(); len(b) > 0; {
			n := 1 + r.IntN(len(b))
			if r.IntN(3) > 0 && len(b) < 200000 {
				n = min(n, 1+r.IntN(200))
			} else if r.IntN(2) > 0 {
				n = min(n, 1+r.IntN(20000))
			}
			if _, err := w.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
		if halfClose && tr.end == endHalfClose {
			w.Conn.(interface{ CloseWrite() error }).CloseWrite()
		}
	}()
	w.SetReadDeadline(time.Now().Add(patience))
	var got []byte
	var err error
	if tr.end == endEcho || tr.end == endHalfClose && !halfClose {
		last := []byte(fmt.Sprintf("+RESET\r\n$%d\r\n%s\r\n", len(sentinel), sentinel))
		buf := make([]byte, 64<<10)
		for err == nil && !bytes.HasSuffix(got, last) {
			var n int
			n, err = w.r.Read(buf)
			got = append(got, buf[:n]...)
		}
	} else {
		got, err = io.ReadAll(w.r)
	}
	w.Close()
	<-sent
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		got = append(got, " (and no end)"...)
	} else if err != nil {
		got = append(got, " (then "+err.Error()+")"...)
	}
	return got
}

// shrink leaves commands out while the difference stays.
func (d *differential) shrink(tr transcript) transcript {
	for size := (len(tr.commands) + 1) / 2; size > 0; size /= 2 {
		for i := 0; i < len(tr.commands); {
			less := tr
			less.commands = slices.Delete(slices.Clone(tr.commands), i, min(i+size, len(tr.commands)))
			if a, b := d.play(less); bytes.Equal(a, b) {
				i += size
				continue
			}
			tr = less
		}
	}
	return tr
}

func firstDifference(a, b []byte) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	from := max(0, i-120)
	return fmt.Sprintf("first difference at byte %d\n  direct:  %q\n  proxied: %q", i, a[from:min(len(a), i+160)], b[from:min(len(b), i+160)])
}

// generator makes transcripts. What depends on time, chance or the connection is left out.
type generator struct {
	*rand.Rand
	prefix string // of keys
	db     int    // where the session's keys are
	alone  bool   // nobody else uses the backend
}

func newGenerator(seed, n uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, n))}
}

// Names that are harmful, blocking, or not answered the same twice.
var notRandom = strings.Fields(`SHUTDOWN SAVE BGSAVE BGREWRITEAOF REPLICAOF SLAVEOF FAILOVER DEBUG MIGRATE MODULE SYNC PSYNC REPLCONF
	ADDREPLICAOF REPLTAKEOVER PFDEBUG PFSELFTEST MONITOR QUIT LASTSAVE INFO TIME RANDOMKEY LOLWUT COMMAND KEYS SCAN SPOP
	SRANDMEMBER HRANDFIELD ZRANDMEMBER SADD TTL PTTL EXPIRETIME PEXPIRETIME EXPIRE PEXPIRE EXPIREAT PEXPIREAT SETEX PSETEX GETEX RESTORE RESTORE-ASKING
	BLPOP BRPOP BLMOVE BLMPOP BRPOPLPUSH BZPOPMIN BZPOPMAX BZMPOP WAIT XREAD XREADGROUP XPENDING XAUTOCLAIM XCLAIM CLIENT
	SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MEMORY SLOWLOG LATENCY SWAPDB
	ACL AUTH HELLO`) // the last three: a user name with CR or LF is refused here

// Templates: %k a key, %v a value, %m an integer member, %i an integer, %f a float. ZSCAN of a key is in no order once SORT
// has converted the set.
var templates = strings.Split(strings.TrimSpace(`
SET %k %v|SET %k %v NX|SET %k %v XX GET|SET %k %v EX 100000|SET %k %v EX 0|GET %k|GETSET %k %v|GETDEL %k|APPEND %k %v|STRLEN %k
MSET %k %v %k %v|MSET %k %v %k|MGET %k %k %k|MSETNX %k %v %k %v|SETNX %k %v|INCR %k|DECRBY %k %i|INCRBYFLOAT %k %f|SETRANGE %k %i %v
GETRANGE %k %i %i|SUBSTR %k %i %i|SETBIT %k %i 1|GETBIT %k %i|BITCOUNT %k|BITOP AND %k %k %k|BITPOS %k 1|BITFIELD %k SET u8 %i %i
LCS %k %k|DEL %k %k|UNLINK %k|EXISTS %k %k|TYPE %k|RENAME %k %k|RENAMENX %k %k|COPY %k %k|PERSIST %k|TOUCH %k|DUMP %k|OBJECT ENCODING %k
EXPIRE %k 100000|EXPIREAT %k 7258118400|PEXPIREAT %k 7258118400000 GT|EXPIREAT %k 1|MOVE %k 1|DBSIZE|FLUSHDB|SORT %k|SORT %k ALPHA DESC
LPUSH %k %v %v|RPUSH %k %v|LPUSHX %k %v|LPOP %k|LPOP %k %i|RPOP %k|LRANGE %k %i %i|LLEN %k|LINDEX %k %i|LSET %k %i %v|LREM %k %i %v
LTRIM %k %i %i|LINSERT %k BEFORE %v %v|LPOS %k %v|RPOPLPUSH %k %k|LMOVE %k %k LEFT RIGHT|LMPOP 2 %k %k LEFT COUNT 2
HSET %k %v %v %v %v|HSETNX %k %v %v|HGET %k %v|HMGET %k %v %v|HGETALL %k|HDEL %k %v|HEXISTS %k %v|HINCRBY %k a %i|HINCRBYFLOAT %k a %f
HKEYS %k|HVALS %k|HLEN %k|HSTRLEN %k a|HSCAN %k 0|HMSET %k a %v|HSET %k a
SADD %k %m %m %m|SREM %k %m|SMEMBERS %k|SISMEMBER %k %m|SMISMEMBER %k %m %v|SCARD %k|SMOVE %k %k %m|SINTER %k %k|SUNION %k %k|SDIFF %k %k
SINTERSTORE %k %k %k|SUNIONSTORE %k %k %k|SDIFFSTORE %k %k %k|SINTERCARD 2 %k %k|SSCAN %k 0
ZADD %k %i %v %f %v|ZADD %k NX GT %i %v|ZADD %k INCR %f %v|ZSCORE %k %v|ZMSCORE %k %v %v|ZINCRBY %k %f %v|ZRANGE %k 0 -1 WITHSCORES
ZRANGE %k (1 +inf BYSCORE LIMIT 0 5|ZRANGE %k - + BYLEX|ZREVRANGE %k 0 -1|ZRANGEBYSCORE %k -inf %f WITHSCORES|ZRANK %k %v|ZCARD %k|ZCOUNT %k 0 5
ZPOPMIN %k|ZPOPMAX %k 2|ZREM %k %v|ZREMRANGEBYRANK %k 0 %i|ZUNION 2 %k %k WITHSCORES|ZINTER 2 %k %k|ZDIFF 2 %k %k|ZUNIONSTORE %k 2 %k %k
ZRANGESTORE %k %k 0 -1|ZMPOP 1 %k MIN|ZSCAN nosuch 0|ZLEXCOUNT %k - +
XADD %k 5-%m f %v|XADD %k MAXLEN 3 9-%m f %v|XLEN %k|XRANGE %k - +|XREVRANGE %k + - COUNT 2|XDEL %k 5-%m|XTRIM %k MAXLEN 1|XREAD COUNT 2 STREAMS %k 0
XREAD BLOCK 3 STREAMS %k 99999-0|XREAD block 2 STREAMS %k %k 0 0|XGROUP CREATE %k g 0 MKSTREAM|XREADGROUP GROUP g c STREAMS %k >|XACK %k g 5-1|XPENDING %k g
XINFO GROUPS %k|XSETID %k 99-1
PFADD %k %v|PFCOUNT %k|PFMERGE %k %k|GEOADD %k 13.36 38.11 %v|GEOADD %k 999 38 %v|GEOPOS %k %v|GEODIST %k %v %v|GEOSEARCH %k FROMLONLAT 15 37 BYRADIUS 200 km ASC
BLPOP %k 0.001|BRPOP %k %k 0.002|BLPOP %k abc|BLPOP %k -1|BLMOVE %k %k LEFT LEFT 0.001|BLMPOP 0.001 1 %k RIGHT|BRPOPLPUSH %k %k 0.001|BZPOPMIN %k 0.001
BZPOPMAX %k 0.001|BZMPOP 0.001 1 %k MAX|WAIT 0 1|WAIT 1 2
EVAL return{1,'a',false,redis.call('GET',KEYS[1])} 1 %k|EVAL return{err='MYERR_x'} 0|EVAL return{ok='fine'} 0|EVAL error('boom') 0|EVAL syntax+error 0
EVAL return(ARGV[1]) 0 %v|EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 %k %v|EVAL return(redis.call('nosuch')) 0|EVAL return(string.rep('x',100000)) 0
EVAL redis.setresp(3);return(redis.call('HGETALL',KEYS[1])) 1 %k|EVALSHA ffffffffffffffffffffffffffffffffffffffff 0|EVAL_RO return(1) 0
SCRIPT LOAD return(1)|EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0|SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db|SCRIPT FLUSH|FCALL nosuch 0
MULTI|MULTI|MULTI|MULTI|EXEC|EXEC|EXEC|EXEC|EXEC|EXEC x|MULTI x|DISCARD|DISCARD|DISCARD x|WATCH %k|WATCH %k %k|UNWATCH
SELECT %i|SELECT 0|SELECT abc|SELECT 99|SWAPDB 0 1|PING|PING %v|ECHO %v|ECHO|AUTH x|AUTH default x|AUTH nobody x|HELLO|HELLO 2|HELLO 3|HELLO 3|HELLO 4|HELLO x
HELLO 3 SETNAME n1|HELLO 3 AUTH default x SETNAME n2|HELLO 3 AUTH nobody x|HELLO 2 AUTH|HELLO 3 SETNAME|RESET|RESET|RESET x
CLIENT SETNAME n|CLIENT SETNAME %v|CLIENT GETNAME|CLIENT SETNAME|CLIENT NO-EVICT off|CLIENT TRACKING on|CLIENT TRACKING off|CLIENT TRACKING on OPTIN|CLIENT CACHING yes
CLIENT TRACKINGINFO|CLIENT GETREDIR|CLIENT UNBLOCK 999999|CLIENT KILL 1.2.3.4:5|CLIENT REPLY ON|CLIENT REPLY SKIP|CLIENT REPLY x|CLIENT HELP|CLIENT BOGUS|CLIENT
SUBSCRIBE c1|PSUBSCRIBE c*|SUBSCRIBE c1 c2 %v|SSUBSCRIBE s1|UNSUBSCRIBE c1|PUNSUBSCRIBE|SUNSUBSCRIBE|PUBLISH c1 %v|PUBLISH c1 %v|SPUBLISH s1 %v
PUBSUB NUMSUB c1 c2|PUBSUB NUMPAT|KEYS k0|OBJECT HELP|COMMAND COUNT|COMMAND INFO get nosuch|CONFIG GET maxmemory|CONFIG BOGUS|ACL WHOAMI|ACL CAT nosuch|ACL GETUSER nosuch
READONLY|READWRITE|ASKING|CLUSTER INFO|ROLE|LATENCY RESET|MEMORY BOGUS|SLOWLOG BOGUS|FUNCTION LIST|FUNCTION KILL|SCRIPT KILL|nosuch %v|no\ blank %v
`), "\n")

var allTemplates = strings.Split(strings.Join(templates, "|"), "|")

func (g *generator) transcript() transcript {
	tr := transcript{end: ending(g.IntN(int(endings))), cutSeed: g.Uint64()}
	if tr.end == endProtocolError {
		tr.broken = g.pick("*1\r\n$-5\r\n", "*x\r\n", "*1\r\n!3\r\n", "*2\r\n$4\r\nECHO\r\n$abc\r\n")
	}
	for range 1 + g.IntN(1+g.IntN(400)) {
		switch n := g.IntN(100); {
		case n < 70:
			t := allTemplates[g.IntN(len(allTemplates))]
			if strings.Contains(t, "SUBSCRIBE") && g.IntN(4) > 0 {
				continue // most else is refused behind it
			}
			tr.commands = append(tr.commands, g.encode(g.fill(t)))
			if strings.HasSuffix(t, "SKIP") {
				tr.commands = append(tr.commands, g.encode([]string{"PING"})) // a RESET whose reply is skipped is waited for
			}
			if strings.HasPrefix(t, "SUBSCRIBE") && g.IntN(3) > 0 {
				tr.commands = append(tr.commands, g.encode(g.fill("GET %k")), g.encode(g.fill("PING %v")), g.encode([]string{g.pick("RESET", "PUNSUBSCRIBE")}))
			}
		case n < 95:
			tr.commands = append(tr.commands, g.encode(g.random()))
		case n < 97:
			tr.commands = append(tr.commands, []byte(g.pick("\r\n", "\n", "  \r\n", "\r\n\r\n")))
		default:
			args := []string{"SET", g.key(), g.big()}
			if g.IntN(4) == 0 {
				args[1] += "\x00" + tooLong
			}
			tr.commands = append(tr.commands, g.encode(args), g.encode([]string{"GET", args[1]}))
		}
	}
	if tr.end == endHalfClose && slices.ContainsFunc(tr.commands, mayBlock) {
		tr.end = endEcho // an EOF ends what is blocked, here as there
	}
	return tr
}

var blockingName = regexp.MustCompile(`(?i)^(\$\d+\s+)?(B[LRZ]|WAIT|XREAD)`)

func mayBlock(c []byte) bool {
	return blockingName.Match(bytes.TrimLeft(c, "*0123456789\r\n"))
}

// random is any command with any arguments.
func (g *generator) random() []string {
	names := commandNames()
	name := names[g.IntN(len(names))]
	for slices.Contains(notRandom, name) {
		name = names[g.IntN(len(names))]
	}
	if g.IntN(20) == 0 {
		name = g.value()
		if slices.Contains(notRandom, strings.ToUpper(name)) || strings.Contains(name, "\x00") { // which dragontls refuses
			name = "x"
		}
	}
	args := []string{name}
	for range g.IntN(7) {
		switch g.IntN(4) {
		case 0:
			args = append(args, g.key())
		case 1:
			args = append(args, g.integer())
		case 2:
			args = append(args, g.pick("COUNT", "LIMIT", "BY", "GET", "STORE", "MATCH", "WITHSCORES", "LEFT", "1.5", "inf", "(1", "-", "+", "AND"))
		default:
			args = append(args, g.value())
		}
	}
	if len(args) > 1 && hasSubcommands(name) {
		args[1] = strings.ReplaceAll(args[1], "\x00", "") // dragontls refuses a subcommand with a NUL
	}
	return args
}

func (g *generator) fill(template string) []string {
	args := strings.Split(strings.ReplaceAll(template, `\ `, "\x00"), " ")
	for i, a := range args {
		a = strings.ReplaceAll(a, "\x00", " ")
		switch {
		case a == "%k":
			a = g.key()
		case a == "%v":
			a = g.value()
		case a == "%i":
			a = g.integer()
		case a == "%f":
			a = g.pick("1.5", "-2", "0", "3e2", "abc", "inf")
		case strings.Contains(a, "%m"):
			a = strings.ReplaceAll(a, "%m", strconv.Itoa(g.IntN(12)))
		}
		args[i] = a
	}
	return args
}

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

var oddKeys = []string{"k\r\n+OK\r\n", "", "\x00\xff"}

func (g *generator) key() string {
	if g.IntN(30) == 0 {
		return g.prefix + g.pick(oddKeys...)
	}
	return g.prefix + "k" + strconv.Itoa(g.IntN(10))
}

func (g *generator) integer() string {
	if g.IntN(8) == 0 {
		return g.pick("9223372036854775807", "-9223372036854775808", "99999999999999999999", "abc", "1.5", "", " 1")
	}
	return strconv.Itoa(g.IntN(14) - 3)
}

func (g *generator) value() string {
	switch g.IntN(8) {
	case 0:
		return g.pick("", "\r\n", "x\r\n+INJ\r\n", "\r", "\n", "$3\r\nabc\r\n", "*1\r\n", "a b", "\"q\"", "'")
	case 1:
		b := make([]byte, g.IntN(40))
		for i := range b {
			b[i] = byte(g.Uint32())
		}
		return string(b)
	case 2:
		return strings.Repeat(g.pick("x", "y\r\n"), g.IntN(3000))
	}
	return g.pick("a", "b", "c", "10", "hello", "3.5")
}

// big values are around the sizes at which the proxy changes how it goes on.
func (g *generator) big() string {
	n := []int{16 << 10, 64 << 10, 128 << 10, 1 << 20}[g.IntN(4)]
	n += g.IntN(200) - 100
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, g.Uint64())
	}
	return string(b[:n])
}

var plainWord = regexp.MustCompile(`^[!#-&(-\[\]-~]+$`)

// encode writes a command as an array, or inline where that says the same.
func (g *generator) encode(args []string) []byte {
	args = slices.Clone(args)
	if g.IntN(3) == 0 {
		args[0] = strings.ToLower(args[0])
	}
	if g.IntN(6) == 0 && args[0][:min(1, len(args[0]))] != "*" && len(strings.Join(args, " ")) < 60000 {
		plain := true
		for _, a := range args {
			plain = plain && plainWord.MatchString(a)
		}
		if plain {
			return []byte(strings.Join(args, strings.Repeat(" ", 1+g.IntN(2))) + g.pick("\r\n", "\n"))
		}
	}
	return []byte(cmd(args...))
}
