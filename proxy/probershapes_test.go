//go:build prober

package proxy

import (
	"slices"
	"strings"
)

// probeTypes are the keys that are there before each call, by the letters that stand for them in a shape: string,
// integer, list, set, sorted set, hash, stream, places, JSON, and those of Dragonfly's filters and sketches; none is the key
// that is not there.
var probeTypes = strings.Fields("s i l e z h x g j bf cf cm tk none")

func probeKey(kind string) string { return "probe:" + kind }

func nameKeys(shape []string) []string {
	shape = slices.Clone(shape)
	for i, word := range shape {
		if slices.Contains(probeTypes, word) {
			shape[i] = probeKey(word)
		}
	}
	return shape
}

// hostile is stored, and part of what a call brings.
const hostile = "x\r\n+INJ\r\n"

// probeData makes the keys. What a backend does not know is an error here and in every call.
func probeData() (all [][]string) {
	del := []string{"DEL", "x", "v", "w", "1", "0", "", hostile, "x\r\n+INJ", "x\n+INJ", "\r", "\n", "\x00\xff"}
	for _, kind := range probeTypes {
		del = append(del, probeKey(kind))
	}
	all = append(all, del)
	for _, line := range []string{
		"SET s !", "SET i 10", "RPUSH l a ! b c", "SADD e a ! b c", "ZADD z 1 a 2 ! 3 b", "HSET h f v ! !", "XADD x 1-1 f !", "XADD x 2-1 ! v", "XGROUP CREATE x gr 0",
		"XGROUP CREATE x ! 0", "XREADGROUP GROUP gr ! COUNT 1 STREAMS x >", "GEOADD g 13.36 38.11 a 15.08 37.50 !", `JSON.SET j $ {"a":[1,2,"x"],"b":{"a":"y\r\n+INJ"}}`,
		"BF.RESERVE bf 0.01 100", "BF.ADD bf !", "CF.RESERVE cf 100", "CF.ADD cf !", "CMS.INITBYDIM cm 100 5", "TOPK.RESERVE tk 3", "TOPK.ADD tk ! a",
	} {
		words := nameKeys(strings.Fields(line))
		for i, word := range words {
			if word == "!" {
				words[i] = hostile
			}
		}
		all = append(all, words)
	}
	return all
}

var optionWords = strings.Fields(`NX XX GT LT CH INCR EX PX EXAT KEEPTTL GET PERSIST LIMIT BYSCORE BYLEX REV WITHSCORES WITHSCORE WITHVALUES WEIGHTS AGGREGATE
	MAX MIN SUM COUNT MATCH TYPE NOVALUES ANY ASC DESC WITHCOORD WITHDIST WITHHASH FROMMEMBER FROMLONLAT BYRADIUS BYBOX STORE STOREDIST BEFORE AFTER LEFT RIGHT
	MAXLEN MINID NOMKSTREAM ENTRIESREAD MKSTREAM IDLE JUSTID FORCE AND OR NOT XOR BIT BYTE OVERFLOW SET REPLACE DB FIELDS IFEQ IFNE IFDEQ LEN RANK m km CAPACITY
	ERROR NOCREATE ITEMS EXPANSION NONSCALING`)

// payloads take the place of arguments: the first so many of each argument of each shape.
func payloads(breaks bool) (all []string, inOrder int) {
	all = []string{"", "\x00", "\xff\x00", "abc", "-1", "1e400", "{", `{"a":`, `$..[?(@.a`, "'", "`", "$5", "*3", "LIMIT", "COUNT", strings.Repeat("y", 100_000)}
	if !breaks {
		return append(all, optionWords...), len(all)
	}
	all = append([]string{"x\r\n+INJ", "\r\n+INJ\r\n", "\n", "x\n+INJ", "\r", "x\r+INJ", "1\r\n+INJ", "LIMIT\r\n+INJ", "$.a\r\n+INJ", "{\"a\":\"\r\n+INJ\"}",
		strings.Repeat("y", 100_000) + "\r\n+INJ"}, all...)
	inOrder = len(all)
	for _, word := range optionWords {
		all = append(all, word, word+"\r\n+INJ", "\r\n+INJ\r\n"+word)
	}
	return all, inOrder
}

// probeShapes are calls with arguments where options are looked for; every command is called in a few other ways too.
var probeShapes = strings.Split(strings.ReplaceAll(strings.TrimSpace(`
APPEND s v|BITCOUNT s 0 1 BIT|BITFIELD s OVERFLOW SAT INCRBY u8 0 1|BITFIELD_RO s GET u8 0|BITOP AND none s i|BITPOS s 1 0 -1 BIT|COPY s none DB 1 REPLACE
DECR i|DECRBY i 1|DEL s l|DELEX s IFEQ v|DIGEST s|DUMP l|ECHO v|EXISTS s l|EXPIRE s 100 NX|EXPIRE s 100 XX GT|PEXPIRE s 100000 NX|EXPIREAT s 7258118400 GT
PEXPIREAT s 7258118400000 LT|EXPIRETIME s|PEXPIRETIME s|FIELDEXPIRE h 100 f v|FIELDTTL h f|GET s|GETBIT s 1|GETDEL s|GETEX s EX 100|GETRANGE s 0 -1|GETSET s v|INCR i
INCRBY i 1|INCRBYFLOAT i 1.5|MGET s i|MSET s v i w|MSETNX none v x w|MOVE s 1|PERSIST s|PING v|PREPEND s v|PSETEX s 100000 v|PTTL s|TTL s|PUBLISH c v|SPUBLISH c v
RANDOMKEY|DBSIZE|TIME|RENAME s none|RENAMENX s none|SET s v NX GET|SET s v EX 100 XX|SETBIT s 7 1|SETEX s 100 v|SETNX none v|SETRANGE s 1 v|SHRINK h|STICK s l|STRLEN s
SUBSTR s 0 1|TOUCH s l|TYPE s|UNLINK s l|CL.THROTTLE none 15 30 60 1
GEOADD g NX CH 13.36 38.11 b 999 38 c|GEOADD g 13.36 38.11 b|GEODIST g a b km|GEOHASH g a b|GEOPOS g a b|GEORADIUS g 15 37 200 km WITHCOORD COUNT 1 ANY ASC
GEORADIUS g 15 37 200 km STORE none|GEORADIUS_RO g 15 37 200 km WITHDIST|GEORADIUSBYMEMBER g a 200 km WITHHASH|GEORADIUSBYMEMBER_RO g a 200 km DESC
GEOSEARCH g FROMMEMBER a BYRADIUS 200 km ASC COUNT 1 ANY|GEOSEARCH g FROMLONLAT 15 37 BYBOX 400 400 km WITHCOORD WITHDIST
HDEL h f|HEXISTS h f|HEXPIRE h 100 NX FIELDS 1 f|HGET h f|HGETALL h|HGETEX h EX 100 FIELDS 1 f|HINCRBY h n 1|HINCRBYFLOAT h n 1.5|HKEYS h|HLEN h|HMGET h f n|HMSET h f v
HPEXPIRETIME h FIELDS 1 f|HRANDFIELD h 2 WITHVALUES|HSCAN h 0 MATCH * COUNT 10 NOVALUES|HSET h f v n w|HSETEX h NX 100 f v|HSETEX h EX 100 FIELDS 1 f v|HSETNX h f v
HSTRLEN h f|HTTL h FIELDS 1 f|HVALS h
LINDEX l 0|LINSERT l BEFORE a v|LLEN l|LMOVE l none LEFT RIGHT|LMPOP 2 none l LEFT COUNT 2|LPOP l 2|LPOS l a RANK 1 COUNT 2 MAXLEN 10|LPUSH l v w|LPUSHX l v|LRANGE l 0 -1
LREM l 1 a|LSET l 0 v|LTRIM l 0 1|RPOP l 2|RPOPLPUSH l none|RPUSH l v|RPUSHX l v
SADD e v|SADDEX e KEEPTTL 100 v|SADDEX e 100 v|SCARD e|SDIFF e none|SDIFFSTORE none e|SINTER e e|SINTERCARD 2 e e LIMIT 1|SINTERSTORE none e e|SISMEMBER e a|SMEMBERS e
SMISMEMBER e a v|SMOVE e none a|SPOP e 2|SRANDMEMBER e -3|SREM e a|SSCAN e 0 MATCH * COUNT 10|SUNION e none|SUNIONSTORE none e
ZADD z NX CH 1 v|ZADD z GT INCR 1 a|ZCARD z|ZCOUNT z -inf (5|ZDIFF 2 z none WITHSCORES|ZDIFFSTORE none 2 z none|ZINCRBY z 1 a|ZINTER 2 z z WEIGHTS 1 2 AGGREGATE MAX WITHSCORES
ZINTERCARD 2 z z LIMIT 1|ZINTERSTORE none 2 z z WEIGHTS 1 2 AGGREGATE SUM|ZLEXCOUNT z - +|ZMPOP 1 z MIN COUNT 2|ZMSCORE z a v|ZPOPMAX z 2|ZPOPMIN z 2|ZRANDMEMBER z 2 WITHSCORES
ZRANGE z 0 -1 WITHSCORES|ZRANGE z 0 5 BYSCORE REV LIMIT 0 1|ZRANGE z - + BYLEX LIMIT 0 1|ZRANGEBYLEX z - + LIMIT 0 1|ZRANGEBYSCORE z -inf +inf WITHSCORES LIMIT 0 1
ZRANGESTORE none z 0 5 BYSCORE LIMIT 0 1|ZRANK z a WITHSCORE|ZREM z a|ZREMRANGEBYLEX z - +|ZREMRANGEBYRANK z 0 1|ZREMRANGEBYSCORE z -inf 1|ZREVRANGE z 0 -1 WITHSCORES
ZREVRANGEBYLEX z + - LIMIT 0 1|ZREVRANGEBYSCORE z +inf -inf WITHSCORES LIMIT 0 1|ZREVRANK z a WITHSCORE|ZSCORE z a|ZUNION 2 z e WEIGHTS 1 2 AGGREGATE MIN WITHSCORES
ZUNIONSTORE none 2 z e WEIGHTS 1 2 AGGREGATE MAX
XACK x gr 1-1|XADD x NOMKSTREAM MAXLEN = 10 * f v|XADD x MINID ~ 1 LIMIT 5 * f v|XADD x 9-1 f v|XAUTOCLAIM x gr c 0 0 COUNT 1 JUSTID|XAUTOCLAIM none gr c 0 0|XCLAIM x gr c 0 1-1 IDLE 5 FORCE JUSTID
XDEL x 1-1|XLEN x|XPENDING x gr IDLE 0 - + 5 c|XPENDING x gr|XRANGE x - + COUNT 1|XREVRANGE x + - COUNT 1|XSETID x 9-9 ENTRIESADDED 5|XTRIM x MAXLEN ~ 1 LIMIT 5
XGROUP SETID x gr 0 ENTRIESREAD 1|XGROUP CREATECONSUMER x gr c|XGROUP DELCONSUMER x gr c|XINFO CONSUMERS x gr
PFADD none v|PFCOUNT none s|PFMERGE none none
JSON.ARRAPPEND j $.a 1 "v"|JSON.ARRINDEX j $.a 1 0 -1|JSON.ARRINSERT j $.a 0 1|JSON.ARRLEN j $.a|JSON.ARRPOP j $.a 0|JSON.ARRTRIM j $.a 0 1|JSON.CLEAR j $.a|JSON.DEL j $.a|JSON.FORGET j $.a
JSON.GET j INDENT i NEWLINE n SPACE s $.a $.b|JSON.GET j $..a|JSON.MERGE j $ {"c":1}|JSON.MGET j s $.a|JSON.MSET j $ 1 none $ 2|JSON.NUMINCRBY j $.a[0] 1|JSON.NUMMULTBY j $.a[0] 2|JSON.OBJKEYS j $.b
JSON.OBJLEN j $.b|JSON.RESP j $|JSON.SET j $.a 1 NX|JSON.STRAPPEND j $.b.a "v"|JSON.STRLEN j $.b.a|JSON.TOGGLE j $.a|JSON.TYPE j $.a
BF.ADD bf v|BF.EXISTS bf v|BF.INFO bf CAPACITY|BF.LOADCHUNK bf 1 v|BF.MADD bf v w|BF.MEXISTS bf v w|BF.RESERVE none 0.01 100 EXPANSION 2 NONSCALING|BF.SCANDUMP bf 0
CF.ADD cf v|CF.ADDNX cf v|CF.COMPACT cf|CF.COUNT cf v|CF.DEL cf v|CF.EXISTS cf v|CF.INFO cf|CF.INSERT cf CAPACITY 100 NOCREATE ITEMS v w|CF.INSERTNX cf NOCREATE ITEMS v|CF.MEXISTS cf v w
CF.RESERVE none 100 BUCKETSIZE 2 MAXITERATIONS 5 EXPANSION 1|CMS.INCRBY cm v 1 w 2|CMS.INFO cm|CMS.INITBYDIM none 10 5|CMS.INITBYPROB none 0.01 0.01|CMS.MERGE none 1 cm WEIGHTS 1|CMS.QUERY cm v w
TOPK.ADD tk v w|TOPK.COUNT tk v|TOPK.INCRBY tk v 1|TOPK.INFO tk|TOPK.LIST tk WITHCOUNT|TOPK.QUERY tk v|TOPK.RESERVE none 3 8 7 0.9
`), "\n", "|"), "|")
