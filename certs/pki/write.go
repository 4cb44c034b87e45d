package pki

import (
	"fmt"
	"os"
	"path/filepath"
)

// writePair replaces NAME.key, then NAME.crt. Between the two renames they do
// not match: a reader must keep the last pair until they do.
func writePair(dir, name string, certPEM, keyPEM []byte, keyMode os.FileMode) error {
	paths := pairPaths(dir, name)
	if err := replace(paths[1], keyPEM, keyMode); err != nil {
		return fmt.Errorf("write %q: %w", paths[1], err)
	}
	if err := replace(paths[0], certPEM, 0o644); err != nil {
		return fmt.Errorf("write %q: %w", paths[0], err)
	}
	return nil
}

// replace puts data at path by a temporary file and a rename, so that no reader
// ever sees half of it, and keeps the owner of the file it replaces where it may.
func replace(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600 from the start
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	keepOwner(f, path)
	if err := fill(f, data, mode); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func fill(f *os.File, data []byte, mode os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// syncDir makes a rename in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
