package certs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

const (
	// maxFileSize bounds what is read: the bundle of all public CAs is about 250
	// KiB, a CRL with a million entries 40 MiB.
	maxFileSize = 64 << 20

	// Two reads this far apart must agree before their content is believed; a
	// writer that needs longer between two writes is met by the next event.
	readPause    = 20 * time.Millisecond
	maxReadPairs = 5
)

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("larger than 64 MiB")
	errUnsettled  = errors.New("it changed at each of several reads")
)

// contents is what each file held when all were read together, by path. It may hold
// keys: it is dropped once parsed, and only its digest is kept.
type contents map[string]content

// content is what one file held, or why it could not be read.
type content struct {
	data []byte
	err  error
}

// reading is what one pass over all files found.
type reading struct {
	contents
	digest [32]byte
}

func readFiles(paths []string) reading {
	return settle(func() reading { return readOnce(paths) })
}

// settle reads until two reads of all files agree, and faults those that never did.
func settle(read func() reading) reading {
	last := read()
	for range maxReadPairs {
		time.Sleep(readPause)
		next := read()
		if next.digest == last.digest {
			return next
		}
		for path, c := range next.contents {
			if !bytes.Equal(c.data, last.contents[path].data) {
				next.contents[path] = content{c.data, errUnsettled}
			}
		}
		last = next
	}
	return last
}

func readOnce(paths []string) reading {
	r := reading{contents: make(contents, len(paths))}
	h := sha256.New()
	for _, path := range paths {
		data, err := readFile(path)
		r.contents[path] = content{data, err}
		if err != nil {
			h.Write([]byte("unreadable " + err.Error()))
		}
		_ = binary.Write(h, binary.BigEndian, uint64(len(data)))
		h.Write(data)
	}
	h.Sum(r.digest[:0])
	return r
}

// readFile does not wait for a writer where path is a named pipe.
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

// get returns the content of path or its fault.
func (c contents) get(path string) ([]byte, error) {
	data, err := c[path].data, c[path].err
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
		cure = "give the file, and every directory above it, to that uid or a group of it"
	case errors.Is(err, os.ErrNotExist):
		cure = "name an existing file"
	}
	return nil, newFault(path, ReasonUnreadable, cure, "read %q: %w (%s)", path, err, describe(path))
}
