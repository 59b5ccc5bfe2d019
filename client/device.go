package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// Device is one user's. Its methods may be called from any goroutine; Sync and
// Run take turns.
type Device struct {
	cfg     Config
	log     *slog.Logger
	budget  accounting.NanoRho
	files   files
	outbox  outbox
	library *Library
	lock    *flock.Flock // nil: Offline
	servers *servers     // nil: Offline

	open context.Context // done once the device is closed
	shut context.CancelCauseFunc

	turn        sync.Mutex // of Sync; what follows is its own
	contributor local.Contributor
	// passed is, by job, the latest attempt that it will not take part in until it
	// is opened again: only one is open at a time.
	passed map[string]passed
	index  uint64 // the highest that a server answered with

	record atomic.Pointer[record] // written under turn

	fitting sync.Mutex // of what follows, and of the files in models
	solver  local.Solver

	predicting sync.RWMutex
	fitted     map[string]*fitted // by job, once they were used
}

// passed is an attempt that was passed over, and why.
type passed struct {
	attemptKey
	why error
}

// fitted is a personal model with the released model that it belongs to.
type fitted struct {
	*release
	own *local.Personal
}

// Names in the folder.
const (
	recordName  = "record"
	lockName    = "lock"
	outboxName  = "outbox"
	modelsName  = "models"
	libraryName = "public"
)

// Open opens a device's folder. Fails with a *ConfigError, a *identity.FileError,
// ErrForbidden, ErrLocked, ErrIdentity, ErrCorrupt or ErrVersion, or that of the
// file that cannot be read or made. It speaks to nobody.
func Open(c Config) (*Device, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Device{
		cfg: c, log: c.Logger, files: files{c.before}, library: c.Library,
		passed: map[string]passed{}, fitted: map[string]*fitted{},
	}
	if d.budget, err = c.Cap.budget(); err != nil {
		return nil, err
	}
	d.outbox = outbox{d.path(outboxName), d.files}
	if d.library == nil {
		d.library = newLibrary(d.path(libraryName), d.files)
	}
	if c.Offline {
		r, err := readRecord(d.path(recordName))
		if err != nil {
			return nil, err
		}
		d.record.Store(r)
		return d, nil
	}
	d.open, d.shut = context.WithCancelCause(context.Background())
	if err := d.enter(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Device) path(names ...string) string {
	return filepath.Join(append([]string{d.cfg.Dir}, names...)...)
}

// enter takes the folder, and reads what it must not forget.
func (d *Device) enter() error {
	if err := makeFolder(d.cfg.Dir); err != nil {
		return err
	}
	lock := flock.New(d.path(lockName), flock.SetPermissions(0o600))
	if ok, err := lock.TryLock(); err != nil {
		return fmt.Errorf("%s: %w", d.path(lockName), err)
	} else if !ok {
		return fmt.Errorf("%s: %w", d.cfg.Dir, ErrLocked)
	}
	d.lock = lock
	r, err := readRecord(d.path(recordName))
	if err != nil {
		return err
	}
	name := d.cfg.Bearer.Identity().Name
	switch _, err := os.Lstat(d.outbox.folder); {
	case r.Name == "" && err == nil:
		return fmt.Errorf("%s: %w: it is gone, and with it what was disclosed", d.path(recordName), ErrCorrupt)
	case r.Name == "":
		// The record comes first: without one the folder is new.
		r.Name = name
		if err := d.files.write(d.path(recordName), r.encode()); err != nil {
			return err
		}
	case r.Name != name:
		return fmt.Errorf("%s: %w: it is that of %q, and the certificate that of %q", d.cfg.Dir, ErrIdentity, r.Name, name)
	}
	d.record.Store(r)
	d.index = r.Index
	for _, folder := range []string{d.outbox.folder, d.path(modelsName), d.library.folder} {
		if err := makeFolder(folder); err != nil {
			return err
		}
	}
	// The record that was read may not be durable yet; what follows relies on it.
	if err := d.files.syncFolder(d.cfg.Dir); err != nil {
		return err
	}
	if d.cfg.Seeded != nil {
		d.log.Warn("the noise is seeded and protects nobody")
	}
	d.servers, err = newServers(d.cfg.Servers, d.cfg.Bearer, d.cfg.Patience)
	return err
}

// Close ends what Sync or Run is at, and lets another Device have the folder.
func (d *Device) Close() error {
	if d.cfg.Offline {
		return nil
	}
	d.shut(ErrClosed)
	d.turn.Lock()
	defer d.turn.Unlock()
	if d.servers != nil {
		d.servers.close()
	}
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// save makes a record the device's, once it is on disk.
func (d *Device) save(r *record) error {
	r.Index = max(r.Index, d.index)
	if err := d.files.write(d.path(recordName), r.encode()); err != nil {
		return err
	}
	d.record.Store(r)
	return nil
}

// Predict returns the response that the user's model of a job expects for
// features x: a value for each of the listed features, in increasing order, or
// for all if columns is nil. It needs no network. Fails with ErrNoModel before
// the first Sync that brought one, with ErrCorrupt until the next Sync where a
// file is damaged, and with the errors of local.Predict.
func (d *Device) Predict(job string, x []float64, columns []int32) (float64, error) {
	f, err := d.model(job)
	if err != nil {
		return 0, err
	}
	return local.Predict(&f.Model, f.own, x, columns)
}

// model returns the job's personal model with its released one.
func (d *Device) model(job string) (*fitted, error) {
	d.predicting.RLock()
	f := d.fitted[job]
	d.predicting.RUnlock()
	if f != nil {
		return f, nil
	}
	d.predicting.Lock()
	defer d.predicting.Unlock()
	if f := d.fitted[job]; f != nil {
		return f, nil
	}
	if d.record.Load().Jobs[job] == nil {
		return nil, fmt.Errorf("%s: %w", job, ErrNoModel)
	}
	p, own, err := readPersonal(d.modelPath(job))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", job, err)
	}
	spec, err := d.library.spec(p.Spec, nil)
	if err == nil {
		var r *release
		if r, err = d.library.state(spec, p.Version, p.State, nil); err == nil {
			f = &fitted{r, own}
			d.fitted[job] = f
			return f, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: the released model that it belongs to is gone: %w", ErrCorrupt, err)
	}
	return nil, fmt.Errorf("%s: %w", job, err)
}

func (d *Device) modelPath(job string) string { return d.path(modelsName, updatePrefix+job) }

// Status is what a device disclosed, and what it may.
type Status struct {
	Identity string `json:"identity,omitempty"`
	Cap      Cap    `json:"cap"`
	// Epsilon at Cap.Delta of all jobs together.
	Epsilon float64            `json:"epsilon"`
	NanoRho accounting.NanoRho `json:"nano_rho,string"`
	Left    accounting.NanoRho `json:"left_nano_rho,string"`
	Jobs    []JobStatus        `json:"jobs"`
	// Pending contributions are noised and stored, and not acknowledged yet.
	Pending []string `json:"pending,omitempty"`
	// Ledger is nil until one was seen.
	Ledger *LedgerStatus `json:"ledger,omitempty"`
	// Former are the ledgers that were followed before Config.LedgerKey named another.
	Former []*LedgerStatus `json:"former_ledgers,omitempty"`
}

// JobStatus is what a device disclosed to one job.
type JobStatus struct {
	Job string `json:"job"`
	// Trust is the job's mode, and NMin the number of honest contributions in a sum
	// that Epsilon relies on, unless Trust is local. They are in the specification:
	// empty until the next Sync where its file is lost.
	Trust    rounds.Trust       `json:"trust,omitempty"`
	NMin     int                `json:"n_min,omitempty"`
	Rounds   int                `json:"rounds"`   // that it disclosed to
	Attempts int                `json:"attempts"` // at them
	Counted  int                `json:"counted"`  // attempts that a server acknowledged
	NanoRho  accounting.NanoRho `json:"nano_rho,string"`
	Epsilon  float64            `json:"epsilon"` // at Delta
	Delta    float64            `json:"delta"`   // the job's own
	Released int                `json:"released"`
	Of       int                `json:"of"` // rounds that the job releases in all
	// Model is the version that the personal model belongs to; -1 is none.
	Model int `json:"model"`
}

// Status needs no network.
func (d *Device) Status() (*Status, error) {
	r := d.record.Load()
	s := &Status{Identity: r.Name, Cap: d.cfg.Cap, Ledger: r.Ledger.status()}
	for _, w := range r.Former {
		s.Former = append(s.Former, w.status())
	}
	var err error
	if s.NanoRho, err = r.spent(); err != nil {
		return nil, err
	}
	s.Left = d.budget - min(s.NanoRho, d.budget)
	if s.Epsilon, err = s.NanoRho.GaussianEpsilon(s.Cap.Delta); err != nil {
		return nil, err
	}
	for name, j := range r.Jobs {
		job := JobStatus{Job: name, Attempts: len(j.Attempts), Delta: j.Delta, Released: j.Released, Of: j.Rounds, Model: -1}
		if spec, err := d.library.spec(j.Spec, nil); err == nil {
			job.Trust, job.NMin = spec.Trust, spec.NMin
		}
		last := 0
		for _, a := range j.Attempts {
			if a.Round != last {
				job.Rounds++
			}
			last = a.Round
			if a.Outcome == Contributed {
				job.Counted++
			}
		}
		if job.NanoRho, err = j.spent(); err != nil {
			return nil, err
		}
		if job.Epsilon, err = job.NanoRho.GaussianEpsilon(j.Delta); err != nil {
			return nil, err
		}
		if p, _, err := readPersonal(d.modelPath(name)); err == nil {
			job.Model = p.Version
		}
		s.Jobs = append(s.Jobs, job)
	}
	slices.SortFunc(s.Jobs, func(a, b JobStatus) int { return strings.Compare(a.Job, b.Job) })
	pending, err := d.outbox.pending()
	for _, k := range pending {
		s.Pending = append(s.Pending, k.String())
	}
	return s, err
}
