package client

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// files changes the directory so that a crash leaves a file as it was before or
// as it is after, and nothing between.
type files struct {
	// before, if set, is asked before every step of a change: tests fail there,
	// or die. A step is create, write, sync, rename or remove of a file, or
	// sync-folder of a folder.
	before func(step, path string) error
}

func (f files) step(step, path string) error {
	if f.before == nil {
		return nil
	}
	return f.before(step, path)
}

// write replaces a file, and returns when the change would survive a power
// failure. On an error the file is the old or the new one.
func (f files) write(path string, data []byte) (err error) {
	temporary := path + ".tmp"
	if err := f.step("create", path); err != nil {
		return err
	}
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(temporary)
		}
	}()
	if err := f.step("write", path); err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := f.step("sync", path); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := f.step("rename", path); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return f.syncFolder(filepath.Dir(path))
}

// syncFolder returns when the names in a folder would survive a power failure: also
// those that an earlier life gave, which was killed between a rename and this.
func (f files) syncFolder(path string) error {
	if err := f.step("sync-folder", path); err != nil {
		return err
	}
	return syncFolder(path)
}

func (f files) remove(path string) error {
	if err := f.step("remove", path); err != nil {
		return err
	}
	return os.Remove(path)
}

// makeFolder makes a folder that survives a power failure.
func makeFolder(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// The frame of a private file, see FORMAT.md: what it is, the format's version,
// two zero bytes, the body, and a checksum of all that.
const (
	frameHeader = 4 + 2 + 2
	frameSum    = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(magic string, version uint16, body []byte) []byte {
	le := binary.LittleEndian
	out := make([]byte, 0, frameHeader+len(body)+frameSum)
	out = append(out, magic...)
	out = le.AppendUint16(out, version)
	out = le.AppendUint16(out, 0)
	out = append(out, body...)
	return le.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// unseal returns the body of a frame, and its version, of which newest is the highest
// that is known. Fails with ErrCorrupt or ErrVersion.
func unseal(magic string, newest uint16, data []byte) (version uint16, body []byte, err error) {
	le := binary.LittleEndian
	if len(data) < frameHeader+frameSum {
		return 0, nil, fmt.Errorf("%w: cut short at %d bytes", ErrCorrupt, len(data))
	}
	if string(data[:len(magic)]) != magic {
		return 0, nil, fmt.Errorf("%w: it is of another kind", ErrCorrupt)
	}
	end := len(data) - frameSum
	if crc32.Checksum(data[:end], castagnoli) != le.Uint32(data[end:]) {
		return 0, nil, fmt.Errorf("%w: its checksum differs", ErrCorrupt)
	}
	if version = le.Uint16(data[4:]); version < 1 || version > newest {
		return 0, nil, fmt.Errorf("%w: %d, where this program knows %d", ErrVersion, version, newest)
	}
	if le.Uint16(data[6:]) != 0 {
		return 0, nil, fmt.Errorf("%w: its reserved bytes are not zero", ErrCorrupt)
	}
	return version, data[frameHeader:end], nil
}
