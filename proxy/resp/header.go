package resp

import (
	"bytes"
	"math"
)

// maxHeader bounds a header line of a client, CR LF included (Dragonfly's bound).
const maxHeader = 32

// A number is what stands in a header line.
type number struct {
	value   int64
	size    int  // of the line, CR LF included; 0: not wholly there
	bad     bool // not a number, or a line too long
	lenient bool // a sign or leading zeros: not to be forwarded
}

// parseHeader reads the number in the line b, whose first byte is the type.
func parseHeader(b []byte) number { // hot
	var v int64
	for i := 1; i < len(b) && i <= 10; i++ {
		if d := b[i] - '0'; d <= 9 {
			v = v*10 + int64(d)
			continue
		}
		if b[i] != '\r' || i == 1 || i+1 == len(b) || b[i+1] != '\n' || b[1] == '0' && i > 2 {
			break
		}
		return number{value: v, size: i + 2}
	}
	return parseLenient(b)
}

// parseLenient takes what Dragonfly takes besides plain digits: a sign and leading zeros, within int64.
func parseLenient(b []byte) number {
	end := bytes.IndexByte(b[:min(len(b), maxHeader)], '\n')
	if end < 0 {
		return number{bad: len(b) >= maxHeader}
	}
	bad := number{size: end + 1, bad: true}
	if b[end-1] != '\r' {
		return bad
	}
	digits := b[1 : end-1]
	if len(digits) == 0 {
		return bad
	}
	negative := digits[0] == '-'
	lenient := negative || digits[0] == '+'
	if lenient {
		digits = digits[1:]
	}
	if len(digits) == 0 {
		return bad
	}
	var v int64
	for _, c := range digits {
		d := int64(c - '0')
		if c < '0' || c > '9' || v > (math.MaxInt64-d)/10 {
			return bad
		}
		v = v*10 + d
	}
	lenient = lenient || digits[0] == '0' && len(digits) > 1
	if negative {
		v = -max(v, 1) // "-0" is refused like any other negative
	}
	return number{value: v, size: end + 1, lenient: lenient}
}
