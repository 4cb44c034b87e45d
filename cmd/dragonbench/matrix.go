package main

import (
	"fmt"
	"strings"
	"time"
)

const (
	// settleTime lets a peer notice that its clients are idle before memory is read. dragontls lets sessions rest after 5 s,
	// which is work too, and gives memory back to the system after 10 s without much work.
	settleTime = 20 * time.Second
	// handshakeClients make connections at the same time.
	handshakeClients = 16
	// handshakeBurst is how many of them a burst makes.
	handshakeBurst = 2000
	// openRate is far below what any peer can do on two CPUs: what is looked for is latency, not throughput.
	openRate = 2000
	// rotationInterval is how often the certificate changes in a storm, greetRate how many new handshakes a second
	// want to see it.
	rotationInterval = 100 * time.Millisecond
	greetRate        = 250
	// stormStretch makes five rounds of 3 s come to 1,000 rotations.
	stormStretch = 20.0 / 3
)

// openLoads are the rates of open loops, in percent of capacity.
var openLoads = []int{30, 60, 90}

// matrix is every row there is.
func matrix() (rows []row) {
	for _, command := range []string{getCommand, setCommand} {
		for _, size := range []int{64, 4 << 10, 16 << 10, 60 << 10, 64 << 10} {
			rows = append(rows, commandRows(command, size)...)
		}
	}
	rows = append(rows, commandRows(mixedCommand, 64)...)
	for _, connections := range []int{2, 4, 8} {
		rows = append(rows, commandRow(getCommand, 64, connections, 1).eachItsOwn())
	}
	for _, connections := range []int{200, 800} { // a slow backend takes many to be busy
		rows = append(rows, commandRow(getCommand, 64, connections, 1))
	}
	for _, connections := range []int{1, 50, 500} {
		rows = append(rows, openRow(connections))
	}
	for _, percent := range openLoads {
		rows = append(rows, loadRow(percent))
	}
	return append(rows,
		handshakeRow(false), handshakeRow(true), handshakeRow(false).inOrder(), handshakeRow(true).inOrder(),
		burstRow(false), burstRow(true), burstRow(false).inOrder(), burstRow(true).inOrder(), churnRow(),
		memoryRow(200, false), memoryRow(1000, false), memoryRow(3000, false), memoryRow(3000, true),
		memoryRow(8000, false), memoryRow(10000, false), // 8,000 fit where the limit of open files is 20,000
		stormRow(), outageRow(), slowOneRow(),
		laggardsRow("slow-readers", "all of one identity", true, true),
		laggardsRow("slow-readers-distinct", "each of its own identity", true, false),
		laggardsRow("slow-readers-same", "all of the others' identity", false, false))
}

func commandRows(command string, size int) (rows []row) {
	for _, connections := range []int{1, 2, 4, 8, 50, 500} {
		for _, pipeline := range []int{1, 16, 100} {
			if few := connections > 1 && connections < 50; few && pipeline > 1 {
				continue // what small pools of connections wait for is a reply
			}
			rows = append(rows, commandRow(command, size, connections, pipeline))
		}
	}
	return rows
}

func commandRow(command string, size, connections, pipeline int) row {
	return row{
		ID:      fmt.Sprintf("%s-%s-c%d-p%d", command, shortSize(size), connections, pipeline),
		Title:   fmt.Sprintf("%s %s, %s, %s", commandTitle(command), sizeName(size), plural(connections, "connection"), pipelineName(pipeline)),
		work:    work{Kind: closedLoop, Command: command, Size: size, Connections: connections, Pipeline: pipeline},
		measure: (*bench).measureLoad,
		extra:   time.Duration(connections) * time.Millisecond,
	}
}

// eachItsOwn is the same row with a client certificate of its own for each connection.
func (r row) eachItsOwn() row {
	r.distinct = true
	r.ID += "-distinct"
	r.Title += ", each with its own client certificate"
	return r
}

func openRow(connections int) row {
	return row{
		ID:    fmt.Sprintf("open-get-64B-c%d", connections),
		Title: fmt.Sprintf("GET 64 B at a fixed rate of %d/s, %s", openRate, plural(connections, "connection")),
		Note: "Open loop: a command is due whether or not the one before it is answered, and its latency counts from then. " +
			"Commands without an answer at the end count as long as they waited.",
		work:    work{Kind: openLoop, Command: getCommand, Size: 64, Connections: connections, Pipeline: 1, Rate: openRate},
		measure: (*bench).measureLoad,
		extra:   time.Duration(connections) * time.Millisecond,
	}
}

// loadRow is openRow at a part of what HAProxy can do, for every peer the same.
func loadRow(percent int) row {
	r := openRow(50)
	r.ID, r.share = fmt.Sprintf("open-%d", percent), percent
	r.Title = fmt.Sprintf("GET 64 B at %d %% of capacity, %s", percent, plural(r.work.Connections, "connection"))
	r.Note += " Capacity is the throughput of HAProxy, or of the first peer where there is none, with as many connections in a closed loop."
	return r
}

func handshakeRow(resume bool) row {
	r := row{
		ID: "handshake-full", Title: "Full mTLS handshakes",
		Note: fmt.Sprintf("Connect, handshake, close_notify, wait for the peer's end, reset; an alert instead of it is an error. "+
			"%d clients at a time.", handshakeClients),
		work:    work{Kind: handshakes, Connections: handshakeClients, Resume: resume},
		measure: (*bench).measureLoad,
	}
	if resume {
		r.ID, r.Title = "handshake-resumed", "Resumed mTLS handshakes"
		r.Note = "As full ones, each with the session ticket of the one before. What was not resumed is an error."
	}
	return r
}

// burstRow is handshakeRow with seconds between bursts. Its rate is that of the bursts, its CPU time that of the pauses too.
func burstRow(resume bool) row {
	r := handshakeRow(resume)
	r.ID += "-burst"
	r.Title += fmt.Sprintf(", in bursts of %d", handshakeBurst)
	r.Note += " The rate is that of the bursts; the CPU time is that of a burst and the pause after it."
	r.work.Kind, r.work.Burst = bursts, handshakeBurst
	r.extra = 1500 * time.Millisecond
	return r
}

// inOrder is the same row with connections that end by a FIN from both sides.
func (r row) inOrder() row {
	r.ID += "-orderly"
	r.Title += ", closed in order"
	r.Note = strings.Replace(r.Note, "close_notify, wait for the peer's end, reset", "close_notify, FIN, wait for the peer's FIN", 1)
	r.work.Orderly = true
	return r
}

func churnRow() row {
	return row{
		ID: "churn", Title: "Connect, GET 64 B, close",
		work:    work{Kind: churn, Command: getCommand, Size: 64, Connections: handshakeClients},
		measure: (*bench).measureLoad,
	}
}

func memoryRow(connections int, distinct bool) row {
	r := row{
		ID:    fmt.Sprintf("memory-%d", connections),
		Title: fmt.Sprintf("Memory of %d idle connections", connections),
		Note: fmt.Sprintf("Growth of the Pss of a fresh process, once each connection had its PING answered and %v went by "+
			"(with --quick a second); for own TLS and no TLS that of the backend.", settleTime),
		work:    work{Kind: idle, Connections: connections},
		measure: (*bench).measureMemory,
		rounds:  3, extra: time.Duration(connections) * 1500 * time.Microsecond,
	}
	if distinct {
		return r.eachItsOwn()
	}
	return r
}

func stormRow() row {
	return row{
		ID: "storm", Title: "A certificate rotation every 100 ms under load",
		Note: fmt.Sprintf("GET 64 B on 50 connections and %d new handshakes a second, first without, then with rotations. "+
			"Seen: server certificates that new connections were shown.", greetRate),
		work: work{Kind: storm, Command: getCommand, Size: 64, Connections: 50, Pipeline: 1,
			Rate: greetRate},
		measure: (*bench).measureStorm,
		stretch: stormStretch, extra: 500 * time.Millisecond,
	}
}

func outageRow() row {
	return row{
		ID: "restart", Title: "Backend killed and started again: time to the first good reply",
		Note:    "From the start of the new backend process to the reply to a PING sent after the old one was killed; without TLS it is the backend's own start.",
		work:    work{Kind: outage},
		measure: (*bench).measureOutage,
		extra:   1500 * time.Millisecond,
	}
}

func slowOneRow() row {
	return row{
		ID: "slow-command", Title: "GET 64 B, 50 connections, beside one that sends a command of " + slowTime + " a second",
		Note: "All of one identity. The slow command holds up its own connection to the backend only; what is measured are the others. " +
			"Needs the model.",
		work:    work{Kind: slowOne, Command: getCommand, Size: 64, Connections: 50, Pipeline: 1, Rate: 1},
		measure: (*bench).measureSlowOne,
		extra:   50 * time.Millisecond,
	}
}

// laggardsRow has laggards beside as many clients that keep up. With distinct those show certificates of their own.
func laggardsRow(id, whose string, distinct, together bool) row {
	const each = 40
	return row{
		ID: id, Title: fmt.Sprintf("GET 64 B, %d connections, beside %d slow readers, %s", each, each, whose),
		Note: fmt.Sprintf("Each slow reader pipelines %d GETs of %s; half of them read nothing, half read %d KiB/s. Measured are the others: "+
			"first without, then with slow readers. A slow reader that is closed comes again, one that reads nothing does not.",
			lagPipeline, sizeName(largeSize), lagRate>>10),
		work:     work{Kind: laggards, Command: getCommand, Size: 64, Connections: each, Laggards: each, Together: together, Pipeline: 1},
		measure:  (*bench).measureLaggards,
		distinct: distinct,
		extra:    500*time.Millisecond + 2*each*time.Millisecond,
	}
}

func commandTitle(command string) string {
	switch command {
	case getCommand:
		return "GET"
	case setCommand:
		return "SET"
	}
	return "GET and SET 9:1"
}

func shortSize(n int) string {
	if n >= 1<<10 {
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dB", n)
}

func sizeName(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func pipelineName(n int) string {
	if n == 1 {
		return "no pipeline"
	}
	return fmt.Sprintf("pipeline of %d", n)
}
