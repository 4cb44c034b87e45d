package resp

import "github.com/tidwall/redcon"

// AppendError appends an error reply; text begins with its code and has neither '-' nor CR LF.
func AppendError(dst []byte, text string) []byte { return redcon.AppendError(dst, text) }

// AppendOK appends +OK.
func AppendOK(dst []byte) []byte { return redcon.AppendOK(dst) }

// AppendCommand appends a canonical array of bulks.
func AppendCommand(dst []byte, args ...string) []byte {
	dst = redcon.AppendArray(dst, len(args))
	for _, arg := range args {
		dst = redcon.AppendBulkString(dst, arg)
	}
	return dst
}

// AppendWords is AppendCommand for arguments that are bytes.
func AppendWords(dst []byte, args [][]byte) []byte {
	dst = redcon.AppendArray(dst, len(args))
	for _, arg := range args {
		dst = redcon.AppendBulk(dst, arg)
	}
	return dst
}
