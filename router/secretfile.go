package router

import (
	"fmt"
	"io"
	"os"
	"runtime"
)

// ReadSecret reads a file that holds a secret, such as a key or a token, of at most so
// many bytes. Except on Windows it refuses a file that everybody on the machine may read
// or write, because that includes other users and raw_exec workflows. Anything but a
// regular file, such as a pipe, is read without that check. Its errors name the file
// and never its content.
func ReadSecret(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // names the file
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o006 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s holds a secret, but everybody may read or write it (mode %#o): chmod o= %[1]s", path, mode.Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return b, nil
}

// RefuseWritable returns an error if everybody on the machine may write a file that
// says whom to trust. It accepts every file on Windows.
func RefuseWritable(name string, info os.FileInfo) error {
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o002 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%s says whom to trust, but everybody may write it (mode %#o): chmod o-w %[1]s", name, mode.Perm())
	}
	return nil
}
