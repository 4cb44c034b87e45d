package proxytest

import (
	"os"
	"testing"
)

func start(t *testing.T, opt Options) *Dragonfly {
	t.Helper()
	d, err := NewDragonfly(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestDragonflyAnswersAsRecorded(t *testing.T) {
	for _, tr := range Transcripts() {
		t.Run(tr.File, func(t *testing.T) { Play(t, start(t, tr.Options).Addr(), tr.File) })
	}
}

func TestRealDragonflyAnswersAsRecorded(t *testing.T) {
	addr := os.Getenv("DRAGONFLY_ADDR")
	if addr == "" {
		t.Skip("DRAGONFLY_ADDR is not set")
	}
	for _, tr := range Transcripts() {
		if tr.Options.RequirePass == "" && tr.Options.MaxClients == 0 && tr.Options.Release == V1_40 { // a plain server of that release
			t.Run(tr.File, func(t *testing.T) { Play(t, addr, tr.File) })
		}
	}
}
