package client

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// outbox is the folder of noised contributions that wait to be acknowledged, a
// file each. What is in it may have been sent, and is never made again.
type outbox struct {
	folder string
	files  files
}

// attemptKey is an attempt at a round of a job.
type attemptKey struct {
	job            string
	round, attempt int
}

func (k attemptKey) String() string {
	return fmt.Sprintf("%s round %d attempt %d", k.job, k.round, k.attempt)
}

// The prefix keeps job names apart from the names that Windows reserves.
const updatePrefix = "job-"

func (o outbox) path(k attemptKey) string {
	return filepath.Join(o.folder, fmt.Sprintf("%s%s.%d.%d", updatePrefix, k.job, k.round, k.attempt))
}

// pending lists what is there, in order of names. Temporary files, which were
// never sent, and names that it did not give are left out.
func (o outbox) pending() ([]attemptKey, error) {
	entries, err := os.ReadDir(o.folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []attemptKey
	for _, e := range entries {
		parts := strings.Split(strings.TrimPrefix(e.Name(), updatePrefix), ".")
		if len(parts) != 3 {
			continue
		}
		round, err1 := strconv.Atoi(parts[1])
		attempt, err2 := strconv.Atoi(parts[2])
		k := attemptKey{parts[0], round, attempt}
		if err1 == nil && err2 == nil && o.path(k) == filepath.Join(o.folder, e.Name()) {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// has reports whether there is a contribution, readable or not.
func (o outbox) has(k attemptKey) bool {
	_, err := os.Lstat(o.path(k))
	return !errors.Is(err, fs.ErrNotExist)
}

// put stores a contribution where there is none.
func (o outbox) put(k attemptKey, r *undertonev1.SubmitRequest) error {
	data, err := encodeUpdate(r)
	if err != nil {
		return err
	}
	return o.files.write(o.path(k), data)
}

// get reads a contribution. Fails with ErrCorrupt, ErrVersion or fs.ErrNotExist.
func (o outbox) get(k attemptKey) (*undertonev1.SubmitRequest, error) {
	path := o.path(k)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := decodeUpdate(data)
	if err == nil && !k.is(r.GetHeader()) {
		err = fmt.Errorf("%w: it belongs to another attempt", ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (o outbox) remove(k attemptKey) error {
	if err := o.files.remove(o.path(k)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (k attemptKey) is(h *undertonev1.SubmitHeader) bool {
	return h.GetJob() == k.job && int(h.GetRound()) == k.round && int(h.GetAttempt()) == k.attempt
}

const (
	updateMagic   = "utdo"
	updateVersion = 1
)

func encodeUpdate(r *undertonev1.SubmitRequest) ([]byte, error) {
	body, err := proto.Marshal(r)
	if err != nil {
		return nil, err
	}
	return seal(updateMagic, updateVersion, body), nil
}

// decodeUpdate fails with ErrCorrupt or ErrVersion.
func decodeUpdate(data []byte) (*undertonev1.SubmitRequest, error) {
	_, body, err := unseal(updateMagic, updateVersion, data)
	if err != nil {
		return nil, err
	}
	r := new(undertonev1.SubmitRequest)
	if err := proto.Unmarshal(body, r); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	h := r.GetHeader()
	if !counts(h.GetRound()) || !counts(h.GetAttempt()) || len(h.GetStateDigest()) != len(digest{}) {
		return nil, fmt.Errorf("%w: no contribution", ErrCorrupt)
	}
	if crc32.Checksum(r.GetPayload(), castagnoli) != h.GetChecksum() {
		return nil, fmt.Errorf("%w: its contribution has another checksum", ErrCorrupt)
	}
	return r, nil
}

// newUpdate is a request of a packed contribution.
func newUpdate(k attemptKey, state digest, payload []byte) *undertonev1.SubmitRequest {
	return &undertonev1.SubmitRequest{
		Header: &undertonev1.SubmitHeader{
			Job: k.job, Round: uint32(k.round), Attempt: uint32(k.attempt),
			StateDigest: slices.Clone(state[:]),
			Checksum:    crc32.Checksum(payload, castagnoli),
		},
		Payload: payload,
	}
}
