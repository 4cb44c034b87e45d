package identity

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxPassword bounds what is read of a file, in bytes.
const maxPassword = 64 << 10

// Password reads the password again at each call and removes one line end at its end. user is
// that of the Match; for a template it must be acceptable as a derived one, else
// ErrBadUser. No error holds the password.
func (r *Rule) Password(user string) (string, error) {
	if r.Template() && !isDerivedUser(user) {
		return "", r.badUser()
	}
	key, cure := "password_env", "set "+r.passwordEnv
	text, err := os.Getenv(r.passwordEnv), error(nil)
	if r.passwordEnv == "" {
		key, cure = "password_file", "name a file that can be read and holds the password"
		text, err = readPassword(r.passwordPath(user))
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	if err == nil && text == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("%s of user %q (line %d of the users file): %w\n%s", key, user, r.Line, err, cure)
	}
	return text, nil
}

func (r *Rule) passwordPath(user string) string {
	path := r.passwordFile
	if r.Template() {
		path = strings.ReplaceAll(path, userPlaceholder, user)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	return path
}

// readPassword does not wait for a writer where path is a named pipe. Its error
// does not name the file: people put the password itself where its file was wanted.
func readPassword(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", withoutPath(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err != nil {
		return "", withoutPath(err)
	}
	if len(text) > maxPassword {
		return "", fmt.Errorf("larger than %d KiB", maxPassword>>10)
	}
	return string(text), nil
}

func withoutPath(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return err
}

// CheckPasswords reads the password of every rule that names its user. Those of
// templates are only known when a client comes. The error holds every fault.
func (u *Users) CheckPasswords() error {
	var faults []error
	for _, r := range u.rules {
		if r.Template() {
			continue
		}
		if _, err := r.Password(r.User); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
