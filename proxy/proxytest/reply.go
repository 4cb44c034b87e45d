package proxytest

import (
	"math"
	"strconv"
)

// reply builds what one command answers, in the protocol that its connection speaks at that moment: a HELLO inside
// EXEC switches it in the middle.
type reply struct {
	b []byte
	c *conn
}

func (r *reply) resp3() bool { return r.c.proto == 3 }

func (r *reply) line(kind byte, s string) {
	r.b = append(r.b, kind)
	r.b = append(r.b, s...)
	r.b = append(r.b, '\r', '\n')
}

func (r *reply) ok()             { r.line('+', "OK") }
func (r *reply) simple(s string) { r.line('+', s) }
func (r *reply) fail(s string)   { r.line('-', s) }
func (r *reply) int(n int)       { r.line(':', strconv.Itoa(n)) }
func (r *reply) array(n int)     { r.line('*', strconv.Itoa(n)) }

func (r *reply) bulk(s string) {
	r.line('$', strconv.Itoa(len(s)))
	r.b = append(r.b, s...)
	r.b = append(r.b, '\r', '\n')
}

func (r *reply) verbatim(s string) {
	if !r.resp3() {
		r.bulk(s)
		return
	}
	r.line('=', strconv.Itoa(len(s)+4))
	r.b = append(r.b, "txt:"...)
	r.b = append(r.b, s...)
	r.b = append(r.b, '\r', '\n')
}

func (r *reply) null() {
	if r.resp3() {
		r.b = append(r.b, "_\r\n"...)
		return
	}
	r.b = append(r.b, "$-1\r\n"...)
}

// nullArray is what a blocking command's time-out answers, in RESP3 too.
func (r *reply) nullArray() { r.b = append(r.b, "*-1\r\n"...) }

// pairs begins a map of n pairs.
func (r *reply) pairs(n int) {
	if r.resp3() {
		r.line('%', strconv.Itoa(n))
		return
	}
	r.array(2 * n)
}

func (r *reply) set(n int) {
	if r.resp3() {
		r.line('~', strconv.Itoa(n))
		return
	}
	r.array(n)
}

func (r *reply) push(n int) {
	if r.resp3() {
		r.line('>', strconv.Itoa(n))
		return
	}
	r.array(n)
}

func (r *reply) double(f float64) {
	s := formatFloat(f)
	if r.resp3() {
		r.line(',', s)
		return
	}
	r.bulk(s)
}

func formatFloat(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}
