package reload

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

const (
	// maxFileSize bounds what is read: the bundle of all public CAs is about 250
	// KiB, a CRL with a million entries 40 MiB.
	maxFileSize = 64 << 20

	// Two reads this far apart must agree before what they found is used. If a writer
	// pauses for longer between two writes, the event of the second causes another reload.
	readPause    = 20 * time.Millisecond
	maxReadPairs = 5
)

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("larger than 64 MiB")
	errUnsettled  = errors.New("it changed at each of several reads")
)

// Contents is what each file held when all were read together, by path. It may hold keys: drop
// it once it is parsed.
type Contents map[string]Content

// Content is what one file held, or why it could not be read.
type Content struct {
	Data []byte
	Err  error

	sum *[32]byte // of both; nil: not made yet
}

// digest of what the file held, or of why it could not be read.
func (c *Content) digest() [32]byte {
	if c.sum != nil {
		return *c.sum
	}
	h := sha256.New()
	if c.Err != nil {
		h.Write([]byte("unreadable " + c.Err.Error()))
	}
	_ = binary.Write(h, binary.BigEndian, uint64(len(c.Data)))
	h.Write(c.Data)
	sum := [32]byte(h.Sum(nil))
	c.sum = &sum
	return sum
}

// Sum returns a digest of what some of the files held.
func (c Contents) Sum(paths ...string) [32]byte {
	h := sha256.New()
	for _, path := range paths {
		content := c[path]
		sum := content.digest()
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// Get returns what the file at path held. If it could not be read, the error is a *Fault with
// ReasonUnreadable that names the owner of the file and the user that dragontls runs as.
func (c Contents) Get(path string) ([]byte, error) {
	data, err := c[path].Data, c[path].Err
	if err == nil {
		return data, nil
	}
	var perr *os.PathError
	if errors.As(err, &perr) {
		err = perr.Err // the path is named below
	}
	cure := ""
	switch {
	case errors.Is(err, os.ErrPermission):
		cure = "give the file, and every directory above it, to that uid or a group of it; for a Kubernetes secret, fsGroup in the securityContext of the pod and defaultMode: 0440"
	case errors.Is(err, os.ErrNotExist):
		cure = "name an existing file"
	}
	return nil, &Fault{File: path, Reason: ReasonUnreadable, Cure: cure, Err: fmt.Errorf("read %q: %w (%s)", path, err, describe(path))}
}

// reading is what one pass over all files found. Only its digest outlives the reload.
type reading struct {
	contents Contents
	digest   [32]byte
}

// Read returns what each file holds; empty paths do not count.
func Read(paths []string) Contents { return readFiles(distinct(paths)).contents }

func readFiles(paths []string) reading {
	return settle(func() reading { return readOnce(paths) })
}

// settle reads until two reads of all files agree. Files that never did get errUnsettled.
func settle(read func() reading) reading {
	last := read()
	for range maxReadPairs {
		time.Sleep(readPause)
		next := read()
		if next.digest == last.digest {
			return next
		}
		for path, c := range next.contents {
			if !bytes.Equal(c.Data, last.contents[path].Data) {
				next.contents[path] = Content{Data: c.Data, Err: errUnsettled}
			}
		}
		last = next
	}
	return last
}

func readOnce(paths []string) reading {
	r := reading{contents: make(Contents, len(paths))}
	for _, path := range paths {
		data, err := readFile(path)
		content := Content{Data: data, Err: err}
		content.digest() // before it is copied into the map
		r.contents[path] = content
	}
	r.digest = r.contents.Sum(paths...)
	return r
}

// readFile reads at most maxFileSize. It never waits for the writer of a named pipe.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	var data bytes.Buffer
	data.Grow(int(min(info.Size(), maxFileSize)) + bytes.MinRead) // a CRL may be large, and is read at each poll
	_, err = data.ReadFrom(io.LimitReader(f, maxFileSize+1))
	if err == nil && data.Len() > maxFileSize {
		err = errTooLarge
	}
	if err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}
