package proxy

import (
	"bytes"
	"strings"
	"testing"
)

func TestCommandsWhoseArgumentsAllowMuchWorkAreUnbounded(t *testing.T) {
	t.Parallel()
	keys := func(n int) string { return strings.Repeat(" k", n) }
	table, err := newCommandTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		command string
		want    commandClass
	}{
		{"GET k", classQuiet}, {"MGET" + keys(63), classQuiet}, {"MGET" + keys(64), classUnbounded},
		{"DEL k", classQuiet}, {"DEL" + keys(200), classUnbounded}, {"UNLINK" + keys(200), classUnbounded}, {"EXISTS" + keys(200), classUnbounded},
		{"MSET" + keys(100), classQuiet}, {"MSET" + keys(200), classUnbounded},
		{"PFCOUNT k", classQuiet}, {"PFCOUNT k k", classUnbounded}, {"PFMERGE k", classQuiet}, {"PFMERGE k k", classUnbounded},
		{"SETRANGE k 99999 v", classQuiet}, {"SETRANGE k 536870000 v", classUnbounded}, {"setbit k 4294967295 1", classUnbounded}, {"SETBIT k 7 1", classQuiet},
		{"CMS.INITBYDIM k 200000000 5", classUnbounded}, {"CMS.INITBYDIM k 5 200000000", classUnbounded}, {"CMS.INITBYDIM k 99999 99999", classUnbounded},
		{"CMS.INITBYPROB k 1e-9 1e-9", classUnbounded}, {"BF.RESERVE k 0.001 1000000000", classUnbounded}, {"TOPK.RESERVE k 10 100000 100000 0.9", classUnbounded},
		{"LMPOP 1 k LEFT", classQuiet}, {"LMPOP 1 k LEFT COUNT 1000000", classUnbounded}, {"ZMPOP 1 k MIN", classQuiet}, {"ZMPOP 1 k MIN COUNT 1000000", classUnbounded},
		{"SPOP k", classQuiet}, {"SPOP k 10", classQuiet}, {"SPOP k 1000000", classUnbounded}, {"LPOP k 1000000", classUnbounded},
		{"ZREMRANGEBYRANK z 0 -1", classUnbounded}, {"ZREMRANGEBYSCORE z 0 1", classUnbounded}, {"ZREMRANGEBYLEX z [a [b", classUnbounded},
		{"GETRANGE k 0 -1", classUnbounded}, {"SUBSTR k 0 -1", classUnbounded},
		{"JSON.GET k $.a", classQuiet}, {"JSON.GET k $..a", classUnbounded}, {"JSON.SET k ..a 1", classUnbounded}, {"JSON.MGET" + keys(100), classUnbounded},
		{"SETRANGE k", classQuiet}, {"SPOP", classQuiet},
	} {
		args := strings.Fields(tt.command)
		frame := []byte(cmd(args...))
		c, _, _ := table.lookup([]byte(args[0]))
		var sub []byte
		if len(args) > 1 {
			sub = []byte(args[1])
		}
		if got := table.classify(c, sub, frame, len(args)); got != tt.want {
			t.Errorf("%.60s: got %v, want %v", tt.command, got, tt.want)
		}
	}
}

func TestArgumentOfAFrame(t *testing.T) {
	t.Parallel()
	frame := []byte(cmd("SETRANGE", "", "12\r\n$3", "v"))
	for place, want := range [][]byte{[]byte("SETRANGE"), {}, []byte("12\r\n$3"), []byte("v"), nil, nil} {
		if got := argument(frame, place); !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("argument %d is %q, want %q", place, got, want)
		}
	}
}
