package resp

import "testing"

func TestLocalReplies(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{string(AppendError([]byte("x"), "NOPERM no")), "x-NOPERM no\r\n"},
		{string(AppendError(nil, "ERR a\r\n+b")), "-ERR a  +b\r\n"},
		{string(AppendOK(nil)), "+OK\r\n"},
		{string(AppendCommand(nil, "AUTH", "", "a\r\nb")), "*3\r\n$4\r\nAUTH\r\n$0\r\n\r\n$4\r\na\r\nb\r\n"},
		{string(errMultibulk.AppendReply(nil)), "-" + errMultibulk.Error() + "\r\n"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestSplitArgsOfAnythingButAnArrayIsNothing(t *testing.T) {
	for _, in := range []string{"", "PING\r\n", "$4 PING\r\n", "*x\r\n", "*1\r\n"} {
		if args := SplitArgs([]byte(in), make([][]byte, 3)); len(args) != 0 {
			t.Errorf("%q: %q", in, args)
		}
	}
}
