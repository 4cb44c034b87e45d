package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"dragontls/certs"
	"dragontls/config"
	"dragontls/proxy/spool"
)

const (
	// maxLogLine: names in certificates and errors of peers can be long; a longer line is replaced by one that quotes
	// its beginning.
	maxLogLine = 16 << 10
	maxQuote   = 2 << 10
	// maxLogLines and maxLogBytes wait to be written. The audit log's own queue fits in there when it is flushed.
	maxLogLines = 8192
	maxLogBytes = 4 << 20
	// logFlushTimeout: how long the process waits at its end for the reader of its log.
	logFlushTimeout = time.Second
	// logRetryInterval is how long to wait before a write that returned EAGAIN is tried again: a process that shares our
	// stderr may have made it non-blocking.
	logRetryInterval = 10 * time.Millisecond
	// logTime is the form of all times in the log, and consoleTime that of the first column for people.
	logTime     = "2006-01-02T15:04:05.000Z07:00"
	consoleTime = "15:04:05.000"
)

// logOutput takes everything that serve and dev say on stderr: the log, the audit log and faults. Writers never wait
// for the reader of stderr. Safe for concurrent use.
type logOutput struct {
	queue    *spool.Queue[logText]
	sink     lineSink // the queue's goroutine writes to it
	held     atomic.Int64
	terminal bool
	plain    bool         // faults that end the process before it serves are text for people
	console  atomic.Bool  // LOG_FORMAT
	level    atomic.Int32 // LOG_LEVEL, a zerolog.Level, see setLevel
	log      logSource    // also what is neither log nor audit log
	audit    logSource
}

// logText is whole log lines and their source.
type logText struct {
	text []byte
	from *logSource
}

// openLog takes over stderr until close. A reader of stderr that goes away does not end the process from here on. format is
// LOG_FORMAT as it is set, which may be to nothing or to nonsense: it decides how faults are told before it is understood.
func openLog(stderr io.Writer, format string) *logOutput {
	o := &logOutput{sink: lineSink{w: stderr}, terminal: isTerminal(stderr)}
	o.plain = format == "console" || format == "" && o.terminal
	o.log.out, o.audit.out = o, o
	o.queue = spool.New(spool.Options[logText]{Size: maxLogLines, Write: o.write, Gap: o.gap})
	o.queue.Start()
	signal.Ignore(syscall.SIGPIPE) // otherwise the next line after the reader has gone would end the process
	return o
}

// close writes what is left, for at most logFlushTimeout.
func (o *logOutput) close() { o.queue.Close(logFlushTimeout) }

// Write takes whole lines as they are.
func (o *logOutput) Write(p []byte) (int, error) { return o.log.Write(p) }

// capture makes the libraries that write to stderr on their own write to the log.
func (o *logOutput) capture(to zerolog.Logger) {
	log.SetFlags(0)
	log.SetOutput(libraryText{to})
	zerolog.ErrorHandler = func(error) { o.log.drop() }
}

// libraryText makes a line of the log of each text that a library writes.
type libraryText struct{ log zerolog.Logger }

func (l libraryText) Write(p []byte) (int, error) {
	l.log.Warn().Str("text", strings.TrimSpace(string(p))).Msg("message from a library")
	return len(p), nil
}

// logger writes the log in the format that c names, and from the level that c names or setLevel has set since.
func (o *logOutput) logger(c config.Config) zerolog.Logger {
	o.console.Store(c.LogFormat == "console")
	level, err := zerolog.ParseLevel(c.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel
	}
	o.setLevel(level)
	return zerolog.New(fromLevel{shortLines{o.inFormat(&o.log)}, &o.level}).Level(zerolog.TraceLevel).With().Timestamp().Logger()
}

// setLevel changes from which level on lines are written, for every logger that logger has returned. Any goroutine may call it.
func (o *logOutput) setLevel(level zerolog.Level) { o.level.Store(int32(level)) }

// fromLevel passes lines on from a level that may change. No logger has that level itself: those that were derived from it would
// keep it.
type fromLevel struct {
	shortLines
	level *atomic.Int32
}

func (f fromLevel) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	if int32(level) < f.level.Load() {
		return len(p), nil
	}
	return f.shortLines.WriteLevel(level, p)
}

// fatal tells why the process ends before it serves: a line of JSON for each fault, or text where people read it.
func (o *logOutput) fatal(message string, err error) {
	if o.plain {
		plainFaults{o}.fatal(message, err)
		return
	}
	log := zerolog.New(shortLines{&o.log}).With().Timestamp().Logger()
	for _, f := range faultFindings(err) {
		line := log.WithLevel(zerolog.FatalLevel).Str("id", f.ID).Str("subject", f.Subject).Str("finding", f.Message)
		if f.Cure != "" {
			line.Str("cure", f.Cure)
		}
		line.Msg(message)
	}
}

// levelOf is the level of the log line that tells of a finding.
func levelOf(s certs.Severity) zerolog.Level {
	switch s {
	case certs.SeverityError:
		return zerolog.ErrorLevel
	case certs.SeverityNote:
		return zerolog.InfoLevel
	}
	return zerolog.WarnLevel
}

// auditLogger writes among the lines of the log, whatever LOG_LEVEL is. Its lines bring their own time. A service that
// `dragontls check` reads and never starts has no output: o is nil.
func (o *logOutput) auditLogger() zerolog.Logger {
	if o == nil {
		return zerolog.Nop()
	}
	return zerolog.New(shortLines{o.inFormat(&o.audit)})
}

func (o *logOutput) inFormat(w io.Writer) io.Writer {
	if o.console.Load() {
		return zerolog.ConsoleWriter{Out: w, TimeFormat: consoleTime, NoColor: !o.terminal}
	}
	return w
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// write is the queue's.
func (o *logOutput) write(t logText) {
	if !o.sink.write(t.text) {
		t.from.drop()
	}
	o.held.Add(-int64(len(t.text)))
}

// gap is the queue's. It does not depend on LOG_LEVEL.
func (o *logOutput) gap(n uint64) bool {
	var line bytes.Buffer
	log := zerolog.New(o.inFormat(&line))
	log.Warn().Time(zerolog.TimestampFieldName, time.Now()).Uint64("lines", n).Msg("log lines were dropped")
	return o.sink.write(line.Bytes())
}

// logSource counts what was dropped of one log.
type logSource struct {
	out     *logOutput
	dropped atomic.Uint64
}

// Write never waits and never fails. p is one line or several.
func (s *logSource) Write(p []byte) (int, error) {
	n := int64(len(p))
	if s.out.held.Add(n) > maxLogBytes {
		s.out.held.Add(-n)
		s.drop()
		return len(p), nil
	}
	if !s.out.queue.Put(logText{append([]byte(nil), p...), s}) {
		s.out.held.Add(-n)
		s.dropped.Add(1)
	}
	return len(p), nil
}

func (s *logSource) drop() {
	s.dropped.Add(1)
	s.out.queue.Drop()
}

// lineSink writes to stderr. One goroutine owns it.
type lineSink struct {
	w    io.Writer
	torn bool // the last write ended within a line
}

// write writes p, which is whole lines, and reports whether it could.
func (s *lineSink) write(p []byte) bool {
	if s.torn {
		if n, _ := s.push([]byte("\n")); n == 0 {
			return false
		}
		s.torn = false
	}
	n, err := s.push(p)
	s.torn = err != nil && n > 0
	return err == nil
}

// push is Write of a stderr that somebody may have made non-blocking.
func (s *lineSink) push(p []byte) (done int, err error) {
	for {
		n, err := s.w.Write(p[done:])
		done += n
		if !errors.Is(err, syscall.EAGAIN) {
			return done, err
		}
		time.Sleep(logRetryInterval)
	}
}

// shortLines passes lines of JSON on, and replaces those longer than maxLogLine.
type shortLines struct{ out io.Writer }

func (s shortLines) Write(p []byte) (int, error) { return s.WriteLevel(zerolog.NoLevel, p) }

func (s shortLines) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	if len(p) <= maxLogLine {
		return s.out.Write(p)
	}
	line, err := json.Marshal(struct {
		Level     string `json:"level,omitempty"`
		Time      string `json:"time"`
		Bytes     int    `json:"bytes"`
		Beginning string `json:"beginning"`
		Message   string `json:"message"`
	}{level.String(), time.Now().Format(logTime), len(p), strings.ToValidUTF8(string(p[:maxQuote]), "?"), "a log line was too long"})
	if err == nil {
		_, err = s.out.Write(append(line, '\n'))
	}
	return len(p), err
}
