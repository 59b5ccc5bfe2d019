//go:build unix

package storage

import (
	"strings"
	"syscall"
	"testing"
)

// A disk that is full is found out at the start. The limit on the size of files
// is one that the kernel holds to without a disk of one's own.
func TestDirectoryRefusesAFullDisk(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Skip(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: old.Max}); err != nil {
		t.Skip(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)
	path := t.TempDir()
	_, err := Open(path, owner, options(t))
	if err == nil || !strings.Contains(err.Error(), "no room") || !strings.Contains(err.Error(), path) {
		t.Errorf("opened without room: %v", err)
	}
}
