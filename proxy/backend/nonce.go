package backend

import "encoding/hex"

// NonceSize is the length of what AppendNonce appends.
const NonceSize = len("*2\r\n$4\r\nECHO\r\n$16\r\n0123456789abcdef\r\n")

// AppendNonce appends an ECHO of a random word, which must return in exactly its place among the replies.
func AppendNonce(b []byte, word uint64) []byte {
	b = append(b, "*2\r\n$4\r\nECHO\r\n"...)
	return AppendNonceReply(b, word)
}

// AppendNonceReply appends the reply to AppendNonce.
func AppendNonceReply(b []byte, word uint64) []byte {
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(word >> (8 * i))
	}
	b = append(b, "$16\r\n"...)
	b = hex.AppendEncode(b, raw[:])
	return append(b, '\r', '\n')
}
