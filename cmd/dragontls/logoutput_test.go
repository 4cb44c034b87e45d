package main

import (
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
	"time"

	"dragontls/config"
)

// scriptedWriter takes as many bytes of each write as its turn says, with its error.
type scriptedWriter struct {
	got   strings.Builder
	turns []turn // used up: all is taken
}

type turn struct {
	take int
	err  error
}

func (w *scriptedWriter) Write(p []byte) (int, error) {
	if len(w.turns) == 0 {
		return w.got.Write(p)
	}
	t := w.turns[0]
	w.turns = w.turns[1:]
	w.got.Write(p[:t.take])
	return t.take, t.err
}

func TestLinesStayWhole(t *testing.T) {
	for _, tt := range []struct {
		name  string
		turns []turn
		wrote []bool
		got   string
	}{
		{"nothing is wrong", nil, []bool{true, true}, "one\ntwo\n"},
		{"non-blocking, and full within a line", []turn{{1, syscall.EAGAIN}, {0, syscall.EAGAIN}}, []bool{true, true}, "one\ntwo\n"},
		{"gone before a line", []turn{{0, syscall.EPIPE}}, []bool{false, true}, "two\n"},
		{"gone within a line", []turn{{2, syscall.EPIPE}}, []bool{false, true}, "on\ntwo\n"},
		{"gone within a line, and for another", []turn{{2, syscall.EPIPE}, {0, syscall.EPIPE}}, []bool{false, false}, "on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &scriptedWriter{turns: tt.turns}
			s := lineSink{w: w}
			for i, line := range []string{"one\n", "two\n"} {
				if got := s.write([]byte(line)); got != tt.wrote[i] {
					t.Errorf("line %d: wrote %v, want %v", i, got, tt.wrote[i])
				}
			}
			if got := w.got.String(); got != tt.got {
				t.Errorf("got %q, want %q", got, tt.got)
			}
		})
	}
}

// gate is a stderr that takes nothing before it opens.
type gate struct {
	strings.Builder
	open, asked chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.asked <- struct{}{}:
	default:
	}
	<-g.open
	return g.Builder.Write(p)
}

func TestFullLogDropsAndTells(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			g := &gate{open: make(chan struct{}), asked: make(chan struct{}, 1)}
			out := openLog(g, "")
			logger := out.logger(config.Config{LogFormat: format, LogLevel: "info"})
			logger.Info().Msg("first")
			<-g.asked
			long := strings.Repeat("x", maxLogLine/2)
			const n = 2 * maxLogBytes / (maxLogLine / 2)
			for range n {
				logger.Info().Str("long", long).Msg("line")
			}
			audit := out.auditLogger()
			audit.Log().Str("audit", long).Msg("line")
			dropped := out.log.dropped.Load()
			if held := out.held.Load(); held > maxLogBytes || dropped < n/2 || out.audit.dropped.Load() != 1 {
				t.Errorf("%d bytes held, %d and %d lines dropped", held, dropped, out.audit.dropped.Load())
			}
			close(g.open)
			if !out.queue.Close(time.Minute) {
				t.Fatal("not all was written")
			}
			text := g.String()
			if held := out.held.Load(); held != 0 {
				t.Errorf("%d bytes held at the end", held)
			}
			if got := strings.Count(text, long); uint64(got)+dropped != n {
				t.Errorf("%d lines written and %d dropped of %d", got, dropped, n)
			}
			if got := strings.Count(text, "log lines were dropped"); got != 1 {
				t.Errorf("the gap is told %d times", got)
			}
			if got := strings.Count(text, "\n"); uint64(got) != n-dropped+2 {
				t.Errorf("%d lines", got)
			}
		})
	}
}

func TestALongLineIsCut(t *testing.T) {
	var w strings.Builder
	out := openLog(&w, "")
	logger := out.logger(config.Config{LogFormat: "json", LogLevel: "info"})
	logger.Error().Str("reason", "first").Err(errors.New(strings.Repeat("é\"\n", maxLogLine))).Msg("never seen")
	logger.Info().Msg("next")
	out.close()
	lines := strings.Split(w.String(), "\n")
	var fields map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &fields); err != nil || len(lines) != 3 || len(lines[0]) > maxLogLine {
		t.Fatalf("%d lines, the first of %d bytes: %v", len(lines)-1, len(lines[0]), err)
	}
	beginning, _ := fields["beginning"].(string)
	if fields["level"] != "error" || fields["bytes"].(float64) < maxLogLine || !strings.HasPrefix(beginning, `{"level":"error","reason":"first",`) {
		t.Errorf("got %v", fields)
	}
}

// What a library writes has the shape of the log.
func TestTextOfLibrariesIsALineOfTheLog(t *testing.T) {
	var w strings.Builder
	text := "http: something\nhappened\n"
	if n, err := (libraryText{zerolog.New(&w)}).Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if want := `{"level":"warn","text":"http: something\nhappened","message":"message from a library"}` + "\n"; w.String() != want {
		t.Errorf("got %s, want %s", &w, want)
	}
}

func TestLevelChangesForLoggersThatExist(t *testing.T) {
	var w scriptedWriter
	out := openLog(&w, "json")
	log := out.logger(config.Config{LogLevel: "warn"})
	session := log.With().Int("session", 1).Logger()
	session.Info().Msg("too low")
	out.setLevel(zerolog.DebugLevel)
	session.Debug().Msg("now shown")
	log.Trace().Msg("still too low")
	out.setLevel(zerolog.ErrorLevel)
	session.Warn().Msg("too low again")
	session.Error().Msg("always")
	out.close()
	got := w.got.String()
	if strings.Contains(got, "too low") || !strings.Contains(got, "now shown") || !strings.Contains(got, "always") {
		t.Errorf("got %s", got)
	}
}
