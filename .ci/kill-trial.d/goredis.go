// Drives go-redis while its server is killed: see ../kill-trial, which says what the variables are and reads what this prints.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	ctx   = context.Background()
	ended atomic.Bool
	mu    sync.Mutex // of standard output
)

func main() {
	clients, pause := number("CLIENTS"), time.Duration(number("PAUSE"))*time.Millisecond
	c := redis.NewClient(&redis.Options{Addr: os.Getenv("HOST") + ":" + os.Getenv("PORT"), TLSConfig: tlsConfig(), PoolSize: clients})
	results := make([]result, clients)
	var ready, over sync.WaitGroup
	ready.Add(clients)
	for i := range clients {
		over.Go(func() { results[i] = ride(c, fmt.Sprintf("go-redis:%d", i), pause, ready.Done) })
	}
	ready.Wait()
	say("ready")
	io.Copy(io.Discard, os.Stdin)
	ended.Store(true)
	over.Wait()
	var sum result
	for _, r := range results {
		sum.Calls += r.Calls
		sum.Errors += r.Errors
		sum.Lost += r.Lost
		sum.Repeated += r.Repeated
		sum.Wrong += r.Wrong
		sum.Alive += r.Alive
	}
	out, _ := json.Marshal(sum)
	say("end " + string(out))
}

type result struct {
	Calls    int `json:"calls"`
	Errors   int `json:"errors"`
	Lost     int `json:"lost"`
	Repeated int `json:"repeated"`
	Wrong    int `json:"wrong"`
	Alive    int `json:"alive"`
}

// counter is a key that only one client increments.
type counter struct{ acked, unsure, last int64 }

func (n *counter) note(got int64, err error, r *result) {
	if err != nil {
		n.unsure++
		return
	}
	n.acked++
	if got <= n.last {
		r.Wrong++
	}
	n.last = got
}

func ride(c *redis.Client, key string, pause time.Duration, ready func()) (r result) {
	var plain, inside counter
	var acked, tried int64
	attempt := func(op string, err error) error {
		r.Calls++
		if err != nil {
			r.Errors++
			say(fmt.Sprintf("error %.3f %s %v", float64(time.Now().UnixMilli())/1000, op, err))
			time.Sleep(250 * time.Millisecond)
		}
		return err
	}
	for n := int64(1); !ended.Load(); n++ {
		tried = n
		if attempt("SET", c.Set(ctx, key, n, 0).Err()) == nil {
			acked = n
		}
		if got, err := c.Get(ctx, key).Int64(); attempt("GET", err) == nil && (got < acked || got > tried) {
			r.Wrong++
		}
		got, err := c.Incr(ctx, key+":n").Result()
		plain.note(got, attempt("INCR", err), &r)
		var inTx *redis.IntCmd
		_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, key+":s", n, 0)
			inTx = p.Incr(ctx, key+":m")
			return nil
		})
		inside.note(inTx.Val(), attempt("EXEC", err), &r)
		if n == 1 {
			ready()
		}
		time.Sleep(pause)
	}
	for name, n := range map[string]*counter{":n": &plain, ":m": &inside} {
		final, err := c.Get(ctx, key+name).Int64()
		if err != nil {
			return r // it is not alive
		}
		r.Lost += int(max(0, n.acked-final))
		r.Repeated += int(max(0, final-n.acked-n.unsure))
	}
	r.Alive = 1
	return r
}

func say(line string) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Println(strings.ReplaceAll(line, "\n", " "))
}

func number(name string) int {
	n, err := strconv.Atoi(os.Getenv(name))
	check(err)
	return n
}

// tlsConfig returns nil if the trial runs in clear.
func tlsConfig() *tls.Config {
	if os.Getenv("CA") == "" {
		return nil
	}
	ca, err := os.ReadFile(os.Getenv("CA"))
	check(err)
	pair, err := tls.LoadX509KeyPair(os.Getenv("CERT"), os.Getenv("KEY"))
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
