package command

import "bytes"

// A word that decides how a command is treated (a name, a subcommand, an option of HELLO) must be read here exactly as the
// backend reads it. Redis compares words as C strings, which end at a NUL, and its hash table finds some names with a NUL in
// them ("SHUTDOWN\0x" is SHUTDOWN in one of some 256 tries); Dragonfly compares whole words. Both ignore the case of ASCII
// letters and of nothing else. So such a word is judged only when it is complete and free of NUL; any other is refused.

func holdsNUL(b []byte) bool { return bytes.IndexByte(b, 0) >= 0 }

// cWord returns the part of b that Redis compares: a C string ends at the first NUL.
func cWord(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// IsWord reports whether b is word, which is in upper case. Only ASCII letters fold: bytes.EqualFold would also take
// U+017F for S and U+212A for K. hot
func IsWord(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if upperByte(c) != word[i] {
			return false
		}
	}
	return true
}

// upperWord returns b with its ASCII letters in upper case and all other bytes as they are.
func upperWord(b []byte) string {
	upper := make([]byte, len(b))
	for i, c := range b {
		upper[i] = upperByte(c)
	}
	return string(upper)
}

func upperByte(c byte) byte {
	if 'a' <= c && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c
}

// appendWord appends the first word of b in upper case. It returns false if that word is longer than any name.
func appendWord(to, b []byte) (_ []byte, ok bool) {
	b = bytes.TrimLeft(b, blanks)
	for n, c := range b {
		switch {
		case c <= ' ':
			return to, true
		case n == maxName:
			return to, false
		}
		to = append(to, upperByte(c))
	}
	return to, true
}

// beginsWithWord reports whether the first word of b is word, which is in upper case.
func beginsWithWord(b []byte, word string) bool {
	var upper [maxName]byte
	first, ok := appendWord(upper[:0], b)
	return ok && string(first) == word
}
