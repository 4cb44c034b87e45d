package proxytest

import "time"

// commandTable is what the fake knows; every other name is unknown to it.
func commandTable() map[string]*command {
	const (
		r1 = read
		w1 = write
		wo = write | denyOOM
		ld = whileLoading
	)
	list := []command{
		{"PING", -1, 0, 0, 0, 0, cmdPing},
		{"ECHO", 2, ld, 0, 0, 0, cmdEcho},
		{"SELECT", 2, ld, 0, 0, 0, cmdSelect},
		{"HELLO", -1, ld | noAuth, 0, 0, 0, cmdHello},
		{"AUTH", -2, ld | noAuth, 0, 0, 0, cmdAuth},
		{"RESET", 1, ld | noAuth | transaction, 0, 0, 0, cmdReset},
		{"QUIT", 1, ld | noAuth | transaction, 0, 0, 0, cmdQuit},
		{"MONITOR", 1, admin, 0, 0, 0, cmdMonitor},

		{"MULTI", 1, transaction, 0, 0, 0, cmdMulti},
		{"EXEC", 1, ld | transaction, 0, 0, 0, cmdExec},
		{"DISCARD", 1, ld | transaction, 0, 0, 0, cmdDiscard},
		{"WATCH", -2, ld, 1, -1, 1, cmdWatch},
		{"UNWATCH", 1, ld, 0, 0, 0, cmdUnwatch},

		{"SUBSCRIBE", -2, ld, 0, 0, 0, subscribe("subscribe", channelSet)},
		{"PSUBSCRIBE", -2, ld, 0, 0, 0, subscribe("psubscribe", patternSet)},
		{"SSUBSCRIBE", -2, ld, 0, 0, 0, subscribe("ssubscribe", shardSet)},
		{"UNSUBSCRIBE", -1, ld, 0, 0, 0, unsubscribe("unsubscribe", channelSet, shardSet)},
		{"PUNSUBSCRIBE", -1, ld, 0, 0, 0, unsubscribe("punsubscribe", patternSet)},
		{"SUNSUBSCRIBE", -1, ld, 0, 0, 0, unsubscribe("unsubscribe", shardSet)}, // sic
		{"PUBLISH", 3, ld, 0, 0, 0, cmdPublish},
		{"SPUBLISH", 3, ld, 0, 0, 0, cmdSpublish},
		{"PUBSUB", -2, ld, 0, 0, 0, cmdPubsub},

		{"GET", 2, r1, 1, 1, 1, cmdGet},
		{"SET", -3, wo, 1, 1, 1, cmdSet},
		{"INCR", 2, wo, 1, 1, 1, cmdIncr},
		{"DECR", 2, wo, 1, 1, 1, cmdDecr},
		{"INCRBY", 3, wo, 1, 1, 1, cmdIncrBy},
		{"APPEND", 3, wo, 1, 1, 1, cmdAppend},
		{"STRLEN", 2, r1, 1, 1, 1, cmdStrlen},
		{"MSET", -3, wo, 1, -1, 2, cmdMset},
		{"MGET", -2, r1, 1, -1, 1, cmdMget},

		{"DEL", -2, w1, 1, -1, 1, cmdDel},
		{"UNLINK", -2, w1, 1, -1, 1, cmdDel},
		{"EXISTS", -2, r1, 1, -1, 1, cmdExists},
		{"TYPE", 2, r1 | ld, 1, 1, 1, cmdType},
		{"TTL", 2, r1, 1, 1, 1, cmdTTL},
		{"EXPIRE", -3, w1, 1, 1, 1, expireIn(time.Second)},
		{"PEXPIRE", -3, w1, 1, 1, 1, expireIn(time.Millisecond)},
		{"KEYS", 2, r1, 0, 0, 0, cmdKeys},
		{"SCAN", -2, r1, 0, 0, 0, cmdScan},
		{"DBSIZE", 1, r1, 0, 0, 0, cmdDBSize},
		{"FLUSHALL", -1, w1, 0, 0, 0, cmdFlushAll},
		{"FLUSHDB", -1, w1, 0, 0, 0, cmdFlushDB},

		{"LPUSH", -3, wo, 1, 1, 1, pushList(true)},
		{"RPUSH", -3, wo, 1, 1, 1, pushList(false)},
		{"LPOP", -2, w1, 1, 1, 1, popList(true)},
		{"RPOP", -2, w1, 1, 1, 1, popList(false)},
		{"LRANGE", 4, r1, 1, 1, 1, cmdLRange},
		{"LLEN", 2, r1, 1, 1, 1, length(kindList)},
		{"BLPOP", -3, w1, 1, -2, 1, blockingPop(true)},
		{"BRPOP", -3, w1, 1, -2, 1, blockingPop(false)},

		{"HSET", -4, wo, 1, 1, 1, cmdHSet},
		{"HGET", 3, r1, 1, 1, 1, cmdHGet},
		{"HGETALL", 2, r1, 1, 1, 1, cmdHGetAll},
		{"HDEL", -3, w1, 1, 1, 1, removeField(kindHash)},
		{"HLEN", 2, r1, 1, 1, 1, length(kindHash)},
		{"SADD", -3, wo, 1, 1, 1, cmdSAdd},
		{"SREM", -3, w1, 1, 1, 1, removeField(kindSet)},
		{"SMEMBERS", 2, r1, 1, 1, 1, cmdSMembers},
		{"SISMEMBER", 3, r1, 1, 1, 1, cmdSIsMember},
		{"SCARD", 2, r1, 1, 1, 1, length(kindSet)},
		{"ZADD", -4, wo, 1, 1, 1, cmdZAdd},
		{"ZSCORE", 3, r1, 1, 1, 1, cmdZScore},
		{"ZRANGE", -4, r1, 1, 1, 1, cmdZRange},
		{"ZCARD", 2, r1, 1, 1, 1, length(kindZset)},

		{"EVAL", -3, 0, 0, 0, 0, cmdEval},
		{"EVALSHA", -3, 0, 0, 0, 0, cmdEvalSha},
		{"EVAL_RO", -3, 0, 0, 0, 0, cmdEval},
		{"EVALSHA_RO", -3, 0, 0, 0, 0, cmdEvalSha},
		{"SCRIPT", -2, 0, 0, 0, 0, cmdScript},

		{"CLIENT", -2, ld, 0, 0, 0, cmdClient},
		{"CONFIG", -2, ld | admin, 0, 0, 0, cmdConfig},
		{"INFO", -1, ld, 0, 0, 0, cmdInfo},
		{"COMMAND", -1, ld, 0, 0, 0, cmdCommand},
		{"TIME", 1, ld, 0, 0, 0, cmdTime},
		{"ROLE", 1, ld, 0, 0, 0, cmdRole},
		{"CLUSTER", -2, ld, 0, 0, 0, cmdCluster},
		{"READONLY", 1, ld, 0, 0, 0, cmdOK},
		{"READWRITE", 1, ld, 0, 0, 0, cmdCluster},
		{"WAIT", 3, 0, 0, 0, 0, cmdWait},
		{"REPLCONF", -1, ld | admin, 0, 0, 0, cmdReplconf},
		{"DEBUG", -2, admin, 0, 0, 0, cmdDebug},
		{"MEMORY", -2, 0, 0, 0, 0, subcommands("MEMORY", nil)},
		{"FUNCTION", -2, 0, 0, 0, 0, subcommands("FUNCTION", nil)},
		{"XGROUP", -3, 0, 0, 0, 0, subcommands("XGROUP", nil)},
		{"LATENCY", -2, ld, 0, 0, 0, subcommands("LATENCY", map[string]func(*reply){"LATEST": func(r *reply) { r.array(0) }})},
		{"SLOWLOG", -2, ld, 0, 0, 0, subcommands("SLOWLOG", map[string]func(*reply){
			"GET": func(r *reply) { r.array(0) }, "LEN": func(r *reply) { r.int(0) }})},

		{"ACL", -1, ld | admin, 0, 0, 0, cmdACL},
		{"ACL WHOAMI", 1, ld | admin, 0, 0, 0, cmdWhoAmI},
		{"ACL SETUSER", -2, ld | admin, 0, 0, 0, cmdACLSetUser},
		{"ACL DELUSER", -2, ld | admin, 0, 0, 0, cmdACLDelUser},
		{"ACL GETUSER", 2, ld | admin, 0, 0, 0, cmdACLGetUser},
		{"ACL USERS", 1, ld | admin, 0, 0, 0, cmdACLUsers},
		{"ACL LIST", 1, ld | admin, 0, 0, 0, cmdACLList},
		{"ACL CAT", -1, ld | admin, 0, 0, 0, cmdACLCat},
		{"ACL DRYRUN", -3, ld | admin, 0, 0, 0, cmdACLDryRun},
		{"ACL LOG", -1, ld | admin, 0, 0, 0, cmdACLLog},
		{"ACL SAVE", 1, ld | admin, 0, 0, 0, cmdACLFile},
		{"ACL LOAD", 1, ld | admin, 0, 0, 0, cmdACLFile},
	}
	table := map[string]*command{}
	for i := range list {
		table[list[i].name] = &list[i]
	}
	return table
}
