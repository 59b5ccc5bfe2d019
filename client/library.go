package client

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
)

// Library is a folder of what is public: specifications and released models,
// under their SHA-256, which is checked whenever one is read. The devices of one
// process can share one; nothing in it is anybody's, and what is lost is fetched
// again.
type Library struct {
	folder string
	files  files

	mu      sync.Mutex
	fetches map[digest]*sync.Mutex // one fetch of a digest at a time
	specs   map[digest]*jobSpec
	states  []*release // the last ones used, the latest first
}

// jobSpec is a specification that holds.
type jobSpec struct {
	*rounds.Spec
	*jobs.Parameters
	digest digest
}

// release is a released state of a job.
type release struct {
	*lowrank.State
	spec    *jobSpec
	version int
	digest  digest

	// The mechanism of the round that starts from it, made once.
	once      sync.Once
	mechanism *local.Mechanism
	err       error
}

// over returns the mechanism of the round that starts from this state.
func (r *release) over(src noise.Source) (*local.Mechanism, error) {
	r.once.Do(func() { r.mechanism, r.err = local.DeviceMechanism(r.spec.Spec, r.version+1, src) })
	if r.err != nil {
		return nil, r.err
	}
	return r.mechanism.With(src), nil
}

// statesInMemory is how many models a Library keeps decoded: those of a few jobs,
// before and after a round.
const statesInMemory = 8

// OpenLibrary opens a folder, and makes it where there is none.
func OpenLibrary(folder string) (*Library, error) {
	if err := makeFolder(folder); err != nil {
		return nil, err
	}
	return newLibrary(folder, files{}), nil
}

func newLibrary(folder string, f files) *Library {
	return &Library{folder: folder, files: f, fetches: map[digest]*sync.Mutex{}, specs: map[digest]*jobSpec{}}
}

func (l *Library) path(d digest) string { return filepath.Join(l.folder, d.String()) }

// read returns the bytes of a digest, or fs.ErrNotExist; damaged ones do not
// count.
func (l *Library) read(d digest) ([]byte, error) {
	data, err := os.ReadFile(l.path(d))
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(data) != d {
		return nil, fmt.Errorf("%s: %w, %w", l.path(d), ErrCorrupt, fs.ErrNotExist)
	}
	return data, nil
}

// bytes returns what has a digest, which fetch brings if it is not there.
func (l *Library) bytes(d digest, fetch func() ([]byte, error)) ([]byte, error) {
	l.mu.Lock()
	one := l.fetches[d]
	if one == nil {
		one = new(sync.Mutex)
		l.fetches[d] = one
	}
	l.mu.Unlock()
	one.Lock()
	defer one.Unlock()

	data, err := l.read(d)
	if !errors.Is(err, fs.ErrNotExist) || fetch == nil {
		return data, err
	}
	if data, err = fetch(); err != nil {
		return nil, err
	}
	if sha256.Sum256(data) != d {
		return nil, fmt.Errorf("%w: %d bytes with another digest than %.8v", ErrDigest, len(data), d)
	}
	if err := l.files.write(l.path(d), data); err != nil {
		return nil, err
	}
	l.mu.Lock()
	delete(l.fetches, d)
	l.mu.Unlock()
	return data, nil
}

// spec returns a specification, after it has recomputed its claims. Fails with
// ErrSpec, ErrDigest, or what fetch fails with.
func (l *Library) spec(d digest, fetch func() ([]byte, error)) (*jobSpec, error) {
	l.mu.Lock()
	known := l.specs[d]
	l.mu.Unlock()
	if known != nil {
		return known, nil
	}
	data, err := l.bytes(d, fetch)
	if err != nil {
		return nil, err
	}
	s, err := parseSpec(data)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.specs[d] = s
	return s, nil
}

// fetchSpec returns a specification of which no digest is known yet.
func (l *Library) fetchSpec(fetch func() ([]byte, error)) (*jobSpec, error) {
	data, err := fetch()
	if err != nil {
		return nil, err
	}
	return l.spec(sha256.Sum256(data), func() ([]byte, error) { return data, nil })
}

// largestBudget is a rho of a million, beyond any privacy. It keeps the sum over
// the jobs of a lifetime within what can be counted, and a server that lies about
// contributions made elsewhere from filling the record up at once.
const largestBudget accounting.NanoRho = 1e15

// parseSpec fails with ErrSpec.
func parseSpec(data []byte) (*jobSpec, error) {
	s, err := rounds.ParseSpec(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	if s.Budget > largestBudget {
		return nil, fmt.Errorf("%w: a budget of %v protects nobody", ErrSpec, s.Budget)
	}
	p, err := jobs.Check(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return &jobSpec{s, p, sha256.Sum256(data)}, nil
}

// state returns a job's released state. Fails with ErrDigest or what fetch fails
// with.
func (l *Library) state(s *jobSpec, version int, d digest, fetch func() ([]byte, error)) (*release, error) {
	l.mu.Lock()
	at := slices.IndexFunc(l.states, func(r *release) bool {
		return r.digest == d && r.spec.digest == s.digest && r.version == version
	})
	if at >= 0 {
		r := l.states[at]
		copy(l.states[1:at+1], l.states[:at])
		l.states[0] = r
		l.mu.Unlock()
		return r, nil
	}
	l.mu.Unlock()
	data, err := l.bytes(d, fetch)
	if err != nil {
		return nil, err
	}
	state, err := jobs.State(s.Spec, version, data)
	if err != nil {
		return nil, fmt.Errorf("%w: model %d of %s: %w", ErrDigest, version, s.Job, err)
	}
	r := &release{State: state, spec: s, version: version, digest: d}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = slices.Insert(l.states, 0, r)
	l.states = l.states[:min(len(l.states), statesInMemory)]
	return r, nil
}

// prune removes all but the digests to keep.
func (l *Library) prune(keep map[digest]bool) error {
	entries, err := os.ReadDir(l.folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var d digest
		if err := d.UnmarshalText([]byte(strings.TrimSuffix(e.Name(), ".tmp"))); err != nil || keep[d] && d.String() == e.Name() {
			continue
		}
		if err := l.files.remove(filepath.Join(l.folder, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
