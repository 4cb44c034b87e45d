//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// goRedis is a client that tries each command once, so that no error hides.
func goRedis(t testing.TB, p *instance, protocol int, change func(*goredis.Options)) *goredis.Client {
	t.Helper()
	o := &goredis.Options{Addr: p.addr, Protocol: protocol, TLSConfig: p.clientTLS(), MaxRetries: -1, DialTimeout: patience}
	if change != nil {
		change(o)
	}
	c := goredis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// want compares what a client's call returned.
func want(t testing.TB, want any) func(got any, err error) {
	t.Helper()
	return func(got any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %.200v (%v), want %.200v", got, err, want)
		}
	}
}

func TestGoRedis(t *testing.T) {
	inBothModes(t, testGoRedisWithEachTLS)
}

func testGoRedisWithEachTLS(t *testing.T, mode string) {
	p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode)
	for _, protocol := range []int{2, 3} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, resume := range []bool{false, true} {
				name := fmt.Sprintf("RESP%d %s resumption %t", protocol, tls.VersionName(version), resume)
				t.Run(name, func(t *testing.T) {
					c := goRedis(t, p, protocol, func(o *goredis.Options) {
						o.TLSConfig.MinVersion, o.TLSConfig.MaxVersion = version, version
						if resume {
							o.TLSConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
						} else {
							o.TLSConfig.SessionTicketsDisabled = true
						}
					})
					testGoRedis(t, c)
				})
			}
		}
	}
	m := p.metrics()
	for _, version := range []string{"1.2", "1.3"} {
		for _, resumed := range []string{"yes", "no"} {
			if m.sum("handshakes_total", "result", "ok", "version", version, "resumed", resumed) == 0 {
				t.Errorf("no handshake of version %s, resumed: %s", version, resumed)
			}
		}
	}
	p.wantEnd()
}

func testGoRedis(t *testing.T, c *goredis.Client) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	want(t, "PONG")(c.Ping(ctx).Result())
	want(t, "OK")(c.FlushAll(ctx).Result())
	testGoRedisPipelines(ctx, t, c)
	testGoRedisPubSub(ctx, t, c)

	popped := make(chan error, 1)
	go func() {
		got, err := c.BLPop(ctx, patience, "queue").Result()
		if err == nil && !reflect.DeepEqual(got, []string{"queue", "job"}) {
			err = fmt.Errorf("got %v", got)
		}
		popped <- err
	}()
	want(t, int64(1))(c.RPush(ctx, "queue", "job").Result())
	if err := <-popped; err != nil {
		t.Fatalf("BLPOP: %v", err)
	}
	if _, err := c.BLPop(ctx, time.Second, "empty").Result(); !errors.Is(err, goredis.Nil) {
		t.Fatalf("got %v, want a null", err)
	}

	script := goredis.NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
	want(t, int64(2))(script.Run(ctx, c, []string{"n"}, 2).Int64()) // EVALSHA, NOSCRIPT, EVAL
	want(t, int64(4))(script.Run(ctx, c, []string{"n"}, 2).Int64())
	want(t, "4")(c.Get(ctx, "n").Result())

	big := strings.Repeat("\r\n+OK\r\n$5", 5<<20/9)
	want(t, "OK")(c.Set(ctx, "big", big, 0).Result())
	want(t, big)(c.Get(ctx, "big").Result())

	// New connections, resumed where the client may.
	for range 5 {
		conn := goredis.NewClient(c.Options())
		want(t, "PONG")(conn.Ping(ctx).Result())
		conn.Close()
	}
}

func testGoRedisPipelines(ctx context.Context, t *testing.T, c *goredis.Client) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			pipe := c.Pipeline()
			var gets []*goredis.StringCmd
			for i := range 500 {
				k := fmt.Sprintf("%d:%d", worker, i)
				pipe.Set(ctx, k, k, 0)
				gets = append(gets, pipe.Get(ctx, k))
			}
			if _, err := pipe.Exec(ctx); err != nil {
				t.Errorf("pipeline: %v", err)
				return
			}
			for i, g := range gets {
				if k := fmt.Sprintf("%d:%d", worker, i); g.Val() != k {
					t.Errorf("got %q, want %q: a foreign reply", g.Val(), k)
					return
				}
			}
		})
	}
	wg.Wait()
	tx := c.TxPipeline()
	incr, get := tx.Incr(ctx, "tx"), tx.Get(ctx, "tx")
	if _, err := tx.Exec(ctx); err != nil || incr.Val() != 1 || get.Val() != "1" {
		t.Fatalf("got %d, %q (%v), want 1", incr.Val(), get.Val(), err)
	}
	err := c.Watch(ctx, func(tx *goredis.Tx) error {
		if err := c.Incr(ctx, "tx").Err(); err != nil { // another connection
			return err
		}
		_, err := tx.TxPipelined(ctx, func(p goredis.Pipeliner) error { p.Incr(ctx, "tx"); return nil })
		return err
	}, "tx")
	if !errors.Is(err, goredis.TxFailedErr) {
		t.Fatalf("got %v, want a failed transaction", err)
	}
	want(t, "2")(c.Get(ctx, "tx").Result())
}

func testGoRedisPubSub(ctx context.Context, t *testing.T, c *goredis.Client) {
	sub := c.Subscribe(ctx, "channel")
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatalf("SUBSCRIBE: %v", err)
	}
	for i := range 50 {
		want(t, int64(1))(c.Publish(ctx, "channel", i).Result())
	}
	for i := range 50 {
		m, err := sub.ReceiveMessage(ctx)
		if err != nil || m.Payload != fmt.Sprint(i) {
			t.Fatalf("got %v (%v), want %d", m, err, i)
		}
	}
	if err := sub.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := sub.Receive(ctx); err != nil {
		t.Fatalf("got %v (%v), want a pong", got, err)
	}
}
