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

// SplitArgs appends the arguments of a complete canonical frame to args[:0]; they alias the frame. It must never see
// other bytes: redcon panics on a negative or huge length.
func SplitArgs(frame []byte, args [][]byte) [][]byte {
	if len(frame) == 0 || frame[0] != '*' { // redcon would take it as Tile38 or telnet
		return args[:0]
	}
	_, args, _, _, err := redcon.ReadNextCommand(frame, args[:0])
	if err != nil {
		return args[:0]
	}
	return args
}
