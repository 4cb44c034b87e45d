package command

import (
	"bytes"
	"strings"
	"testing"

	"dragontls/proxy/resp"
)

func TestCommandsWhoseArgumentsAllowMuchWorkAreUnbounded(t *testing.T) {
	t.Parallel()
	keys := func(n int) string { return strings.Repeat(" k", n) }
	table, err := NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		command string
		want    Class
	}{
		{"GET k", Quiet}, {"MGET" + keys(63), Quiet}, {"MGET" + keys(64), Unbounded},
		{"DEL k", Quiet}, {"DEL" + keys(200), Unbounded}, {"UNLINK" + keys(200), Unbounded}, {"EXISTS" + keys(200), Unbounded},
		{"MSET" + keys(100), Quiet}, {"MSET" + keys(200), Unbounded},
		{"PFCOUNT k", Quiet}, {"PFCOUNT k k", Unbounded}, {"PFMERGE k", Quiet}, {"PFMERGE k k", Unbounded},
		{"SETRANGE k 99999 v", Quiet}, {"SETRANGE k 536870000 v", Unbounded}, {"setbit k 4294967295 1", Unbounded}, {"SETBIT k 7 1", Quiet},
		{"CMS.INITBYDIM k 200000000 5", Unbounded}, {"CMS.INITBYDIM k 5 200000000", Unbounded}, {"CMS.INITBYDIM k 99999 99999", Unbounded},
		{"CMS.INITBYPROB k 1e-9 1e-9", Unbounded}, {"BF.RESERVE k 0.001 1000000000", Unbounded}, {"TOPK.RESERVE k 10 100000 100000 0.9", Unbounded},
		{"LMPOP 1 k LEFT", Quiet}, {"LMPOP 1 k LEFT COUNT 1000000", Unbounded}, {"ZMPOP 1 k MIN", Quiet}, {"ZMPOP 1 k MIN COUNT 1000000", Unbounded},
		{"SPOP k", Quiet}, {"SPOP k 10", Quiet}, {"SPOP k 1000000", Unbounded}, {"LPOP k 1000000", Unbounded},
		{"ZREMRANGEBYRANK z 0 -1", Unbounded}, {"ZREMRANGEBYSCORE z 0 1", Unbounded}, {"ZREMRANGEBYLEX z [a [b", Unbounded},
		{"GETRANGE k 0 -1", Unbounded}, {"SUBSTR k 0 -1", Unbounded},
		{"JSON.GET k $.a", Quiet}, {"JSON.GET k $..a", Unbounded}, {"JSON.SET k ..a 1", Unbounded}, {"JSON.MGET" + keys(100), Unbounded},
		{"SETRANGE k", Quiet}, {"SPOP", Quiet},
	} {
		args := strings.Fields(tt.command)
		frame := resp.AppendCommand(nil, args...)
		c, _, _ := table.Lookup([]byte(args[0]))
		var sub []byte
		if len(args) > 1 {
			sub = []byte(args[1])
		}
		if got := table.Classify(c, sub, frame, len(args)); got != tt.want {
			t.Errorf("%.60s: got %v, want %v", tt.command, got, tt.want)
		}
	}
}

func TestArgumentOfAFrame(t *testing.T) {
	t.Parallel()
	frame := resp.AppendCommand(nil, "SETRANGE", "", "12\r\n$3", "v")
	for place, want := range [][]byte{[]byte("SETRANGE"), {}, []byte("12\r\n$3"), []byte("v"), nil, nil} {
		if got := argument(frame, place); !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("argument %d is %q, want %q", place, got, want)
		}
	}
}
