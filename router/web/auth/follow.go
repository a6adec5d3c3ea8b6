package auth

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"time"

	"switchyard/router"
)

// FollowAccess reads an access file, and returns a function that returns the access
// in force. That function reads the file again when it changes, checking once a
// second at most; while the file is missing or has faults, which is logged, the access
// read before stays in force. It never fails, and is safe for concurrent use.
func FollowAccess(name string, log *slog.Logger) (current func() (*Access, error), err error) {
	f := &accessFile{name: name, log: log}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f.current, nil
}

// An accessFile is what FollowAccess follows.
type accessFile struct {
	name string
	log  *slog.Logger

	mu        sync.Mutex
	access    *Access
	as        os.FileInfo // of the content in access
	readAt    time.Time
	checkedAt time.Time
	gone      bool // it was missing when last checked
}

// racy is how long after its modification time a file may change again without a
// new time or size, because of the file system's clock.
const racy = 2 * time.Second

func (f *accessFile) current() (*Access, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checkedAt) > time.Second {
		f.checkedAt = now
		info, err := os.Stat(f.name)
		switch {
		case err != nil && f.gone: // already logged
		case err != nil:
			f.gone = true
			f.log.Error("the access file cannot be read; everybody keeps the access they had", "err", err)
		case f.gone || !os.SameFile(info, f.as) || info.ModTime() != f.as.ModTime() || info.Size() != f.as.Size() || f.readAt.Sub(f.as.ModTime()).Abs() < racy:
			f.gone = false
			before := f.access
			if err := f.read(); err != nil {
				f.as, f.readAt = info, now
				f.log.Error("the access file has faults; everybody keeps the access they had", "err", err)
			} else if !reflect.DeepEqual(before, f.access) {
				f.log.Info("the access file was read again", "file", f.name)
			}
		}
	}
	return f.access, nil
}

func (f *accessFile) read() error {
	now := time.Now()
	info, err := os.Stat(f.name)
	if err != nil {
		return fmt.Errorf("read the access file: %w", err)
	}
	if err := router.RefuseWritable(f.name, info); err != nil {
		return err
	}
	src, err := os.ReadFile(f.name)
	if err != nil {
		return fmt.Errorf("read the access file: %w", err)
	}
	access, err := ParseAccess(f.name, src)
	if err != nil {
		return err
	}
	if o := access.OIDC; o != nil && o.ClientSecretFile != "" {
		secret, err := router.ReadSecret(o.ClientSecretFile, maxSecret)
		if err == nil && len(bytes.TrimSpace(secret)) == 0 {
			err = fmt.Errorf("%s is empty", o.ClientSecretFile)
		}
		if err != nil {
			return fmt.Errorf("client_secret_file: %w", err)
		}
	}
	f.access, f.as, f.readAt = access, info, now
	return nil
}
