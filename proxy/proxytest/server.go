package proxytest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// version is what the release calls itself.
func (d *Dragonfly) version() string {
	if d.opt.Release == August2026 {
		return "df-f8eca6d0b"
	}
	return "df-v1.40.1"
}

func (d *Dragonfly) setUpConfig() {
	d.config = map[string]string{
		"maxmemory": "536870912", "timeout": "0", "databases": "16", "dbnum": "16", "requirepass": d.opt.RequirePass,
		"maxclients": itoa(d.opt.MaxClients), "tls": strconv.FormatBool(d.opt.TLS != nil), "tls_cert_file": "", "tls_key_file": "",
		"tls_ca_cert_file": "", "tls_ca_cert_dir": "", "notify_keyspace_events": "", "pipeline_squash": "1",
	}
}

func cmdConfig(c *conn, args [][]byte, r *reply) {
	d := c.d
	switch sub := upper(args[1]); {
	case sub == "GET" && len(args) == 3:
		pattern := strings.ReplaceAll(strings.ToLower(string(args[2])), "-", "_")
		var found []string
		for _, k := range sortedKeys(d.config) {
			if glob(pattern, k) {
				found = append(found, k)
			}
		}
		r.pairs(len(found))
		for _, k := range found {
			r.bulk(k)
			r.bulk(d.config[k])
		}
	case sub == "SET" && len(args) != 4:
		r.fail(wrongArity("CONFIG|SET"))
	case sub == "SET":
		name, val := strings.ToLower(string(args[2])), string(args[3])
		key := strings.ReplaceAll(name, "-", "_")
		if _, known := d.config[key]; !known {
			r.fail("ERR Unknown option or number of arguments for CONFIG SET - '" + name + "'")
			return
		}
		switch key {
		case "maxclients":
			n, err := strconv.Atoi(val)
			if err != nil {
				r.fail("ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument can not be set")
				return
			}
			d.opt.MaxClients = n
		case "requirepass":
			u := d.users["default"]
			if u.nopass = val == ""; val != "" {
				u.passwords = append(u.passwords, val) // the old one stays valid
			}
		}
		d.config[key] = val
		r.ok()
	case sub == "RESETSTAT":
		r.ok()
	case sub == "REWRITE":
		r.fail("ERR The server is running without a config file")
	default:
		r.unknownSub(sub, "CONFIG")
	}
}

func cmdInfo(c *conn, args [][]byte, r *reply) {
	d := c.d
	sections := []struct{ name, text string }{
		{"server", "# Server\r\nredis_version:7.4.0\r\ndragonfly_version:" + d.version() + "\r\nredis_mode:standalone\r\narch_bits:64\r\n" +
			"os:Linux x86_64\r\nthread_count:1\r\nmultiplexing_api:iouring\r\n\r\n"},
		{"clients", fmt.Sprintf("# Clients\r\nconnected_clients:%d\r\nmax_clients:%d\r\nclient_read_buffer_bytes:512\r\nblocked_clients:%d\r\n"+
			"pipeline_queue_length:0\r\nsend_delay_ms:0\r\ntimeout_disconnects:0\r\n\r\n", d.open, d.opt.MaxClients, len(d.waiters))},
		{"replication", "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:245bcbc5fee86c3b7e90c646e0a2db42b378579f\r\n\r\n"},
	}
	var b strings.Builder
	for _, s := range sections {
		wanted := len(args) == 1
		for _, a := range args[1:] {
			name := strings.ToLower(string(a))
			wanted = wanted || name == s.name || name == "all"
		}
		if wanted {
			b.WriteString(s.text)
		}
	}
	r.verbatim(b.String())
}

func cmdCommand(c *conn, args [][]byte, r *reply) {
	switch {
	case len(args) == 1:
		r.array(len(c.d.commands))
		for _, name := range sortedKeys(c.d.commands) {
			c.d.commands[name].describe(r)
		}
	case upper(args[1]) == "COUNT" && len(args) == 2:
		r.int(310)
	case upper(args[1]) == "INFO" && len(args) == 3:
		cmd := c.d.commands[upper(args[2])]
		if cmd == nil {
			r.null()
			return
		}
		r.array(1)
		cmd.describe(r)
	default:
		r.fail(syntaxErr)
	}
}

func (cmd *command) describe(r *reply) {
	r.array(7)
	r.simple(cmd.name)
	r.int(cmd.arity)
	r.array(1)
	if cmd.flags&write != 0 {
		r.simple("write")
	} else {
		r.simple("readonly")
	}
	r.int(cmd.first)
	r.int(cmd.last)
	r.int(cmd.step)
	r.array(0)
}

func cmdTime(_ *conn, _ [][]byte, r *reply) {
	now := time.Now()
	r.array(2)
	r.int(int(now.Unix()))
	r.int(now.Nanosecond() / 1000)
}

func cmdRole(_ *conn, _ [][]byte, r *reply) {
	r.array(2)
	r.bulk("master")
	r.array(0)
}

func cmdCluster(_ *conn, _ [][]byte, r *reply) {
	r.fail("ERR Cluster is disabled. Enabled via passing --cluster_mode=emulated|yes")
}

func cmdOK(_ *conn, _ [][]byte, r *reply) { r.ok() }

// cmdReplconf gives no reply at all to ACK.
func cmdReplconf(_ *conn, args [][]byte, r *reply) {
	if len(args) > 1 && upper(args[1]) == "ACK" {
		return
	}
	r.ok()
}

func cmdWait(_ *conn, _ [][]byte, r *reply) { r.int(0) }

func cmdDebug(c *conn, args [][]byte, r *reply) {
	if upper(args[1]) == "OBJECT" && len(args) == 3 && c.d.dbs[c.db][string(args[2])] == nil {
		r.fail("ERR no such key")
		return
	}
	r.unknownSub(upper(args[1]), "DEBUG")
}

// subcommands plays a command of which only a few subcommands answer, each in a fixed way.
func subcommands(name string, fixed map[string]func(r *reply)) func(*conn, [][]byte, *reply) {
	return func(_ *conn, args [][]byte, r *reply) {
		sub := upper(args[1])
		if f := fixed[sub]; f != nil {
			f(r)
			return
		}
		r.unknownSub(sub, name)
	}
}
