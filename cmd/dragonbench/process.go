package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// markVariable is in the environment of everything a run starts.
const markVariable = "DRAGONBENCH_RUN"

var errClosed = errors.New("the run is over")

// keeper starts every process of a run, each in a process group of its own, and ends them all. Its janitor, a process
// beside it, does that too when this one cannot any more. Any goroutine may use it.
type keeper struct {
	dir     string // of the run; the janitor removes it
	starts  chan func()
	janitor *exec.Cmd
	// pin, where there is one, keeps clients on a CPU of their own, so that none takes time from what it measures. Set
	// before the first start.
	pin  func(client bool)
	over sync.Once

	mu     sync.Mutex
	closed bool
	orders io.WriteCloser // to the janitor
	alive  map[int]*process
	serial int
}

// process is a running program with all its children.
type process struct {
	keeper *keeper
	cmd    *exec.Cmd
	group  int // its process group
	log    string
	ended  chan struct{}
}

func newKeeper() (*keeper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	k := &keeper{starts: make(chan func()), alive: map[int]*process{}, janitor: exec.Command(self, janitorCommand)}
	k.janitor.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it outlives us
	k.janitor.Stderr = os.Stderr
	orders, err := k.janitor.StdinPipe()
	if err != nil {
		return nil, err
	}
	answer, err := k.janitor.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := k.janitor.Start(); err != nil {
		return nil, fmt.Errorf("start janitor: %w", err)
	}
	k.orders = orders
	line, err := bufio.NewReader(answer).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("start janitor: %w", err)
	}
	k.dir = strings.TrimSpace(line)
	go k.startThread() // ends with close
	return k, nil
}

// startThread starts processes from one thread that lives as long as the run: Linux sends the signal of Pdeathsig when
// the thread ends, not the process.
func (k *keeper) startThread() {
	runtime.LockOSThread()
	for start := range k.starts {
		start()
	}
}

// close ends everything and removes the directory. It may be called more than once, and returns when all is gone.
func (k *keeper) close() {
	k.over.Do(func() {
		k.mu.Lock()
		k.closed = true
		k.mu.Unlock()
		k.orders.Close() // the janitor takes that for our end
		_ = k.janitor.Wait()
		for _, p := range k.running() {
			<-p.ended
		}
		close(k.starts)
	})
}

func (k *keeper) running() (all []*process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.alive {
		all = append(all, p)
	}
	return all
}

// groups are the process groups that run now.
func (k *keeper) groups() (all []int) {
	for _, p := range k.running() {
		all = append(all, p.group)
	}
	return all
}

// start runs cmd. What it prints goes to a log file, unless cmd says otherwise.
func (k *keeper) start(cmd *exec.Cmd) (*process, error) { return k.startAs(false, cmd) }

func (k *keeper) startAs(client bool, cmd *exec.Cmd) (*process, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, errClosed
	}
	k.serial++
	p := &process{keeper: k, cmd: cmd, ended: make(chan struct{})}
	p.log = filepath.Join(k.dir, fmt.Sprintf("%03d-%s.log", k.serial, filepath.Base(cmd.Path)))
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, markVariable+"="+k.dir)
	cmd.SysProcAttr = ownGroup()
	started := make(chan error)
	k.starts <- func() {
		if k.pin != nil {
			k.pin(client) // what it starts inherits that
		}
		started <- cmd.Start()
	}
	if err := <-started; err != nil {
		return nil, err
	}
	p.group = cmd.Process.Pid
	k.alive[p.group] = p
	fmt.Fprintf(k.orders, "+%d\n", p.group)
	go p.wait() // ends with the process
	return p, nil
}

func (p *process) wait() {
	_ = p.cmd.Wait() // callers that need the exit code read ProcessState
	k := p.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	// Children that outlive their leader are no use to anybody; while they are there the group's number is not free.
	_ = syscall.Kill(-p.group, syscall.SIGKILL)
	delete(k.alive, p.group)
	if !k.closed {
		fmt.Fprintf(k.orders, "-%d\n", p.group)
	}
	close(p.ended)
}

// stop ends the process and its children at once.
func (p *process) stop() {
	select {
	case <-p.ended:
		return
	default:
	}
	_ = syscall.Kill(-p.group, syscall.SIGKILL)
	<-p.ended
}

// tail is the end of what it printed, for an error message.
func (p *process) tail() string {
	const lines = 5
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(plain(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// escapeSequence is what a program sends to a terminal for colours (CSI in ECMA-48).
var escapeSequence = regexp.MustCompile("\x1b\\[[0-9;:?]*[ -/]*[@-~]")

// plain is what a program printed, without its colours: Dragonfly colours its version, and what it logs, even in a file.
func plain(b []byte) string { return escapeSequence.ReplaceAllString(string(b), "") }

// output runs a client to its end and returns what it printed on both streams.
func (k *keeper) output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	p, err := k.startAs(true, cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.stop()
		return "", ctx.Err()
	}
	out, err := os.ReadFile(p.log)
	if err == nil && !cmd.ProcessState.Success() {
		err = errors.New(cmd.ProcessState.String())
	}
	return plain(out), err
}
