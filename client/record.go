package client

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// record is what the device knows of itself and may never forget: what it
// disclosed, and what it was shown. It is not changed once it is written; the
// functions that change it work on a clone.
type record struct {
	Name string `json:"name"` // of the identity; empty until the first Sync
	// Index is the highest that any server answered with.
	Index uint64                `json:"index,string"`
	Jobs  map[string]*jobRecord `json:"jobs"`
	// Ledger is nil until one was seen.
	Ledger *witnessed `json:"ledger,omitempty"`
	// Former are the ledgers that were followed before, one of an origin.
	Former []*witnessed `json:"former,omitempty"`
}

// jobRecord is a job as it was shown.
type jobRecord struct {
	Spec     digest  `json:"spec"`
	Delta    float64 `json:"delta"`
	Rounds   int     `json:"rounds"`   // that the job releases in all
	Released int     `json:"released"` // the latest version seen
	State    digest  `json:"state"`    // of that version
	// Conflict says what differs where two histories were shown.
	Conflict string `json:"two_histories,omitempty"`
	// Attempts are those that were disclosed to, in order.
	Attempts []disclosure `json:"attempts,omitempty"`
}

// disclosure is an attempt that was charged.
type disclosure struct {
	Round   int                `json:"round"`
	Attempt int                `json:"attempt"`
	State   digest             `json:"state"` // of version Round-1
	Charge  accounting.NanoRho `json:"nano_rho,string"`
	// Reserved is how many records the ledger had in which the attempt was shown to be
	// charged; 0: it never was, as with version 1, or that was another ledger.
	Reserved int64 `json:"reserved,omitempty"`
	// Outcome is empty until it is settled: then nothing is sent any more.
	Outcome Outcome `json:"outcome,omitempty"`
}

// digest is a SHA-256 sum, in hexadecimal digits as text.
type digest rounds.Digest

func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

func (d *digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return errors.New("a digest of another length")
	}
	_, err := hex.Decode(d[:], text)
	return err
}

func (d digest) String() string { return hex.EncodeToString(d[:]) }

const (
	recordMagic   = "utdr"
	recordVersion = 2 // 1 has no ledgers
)

func (r *record) encode() []byte {
	body, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers and strings: a delta that is no number was refused
	}
	return seal(recordMagic, recordVersion, body)
}

// decodeRecord fails with ErrCorrupt or ErrVersion.
func decodeRecord(data []byte) (*record, error) {
	version, body, err := unseal(recordMagic, recordVersion, data)
	if err != nil {
		return nil, err
	}
	r := new(record)
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil || d.More() {
		return nil, fmt.Errorf("%w: no record: %v", ErrCorrupt, err)
	}
	if version < 2 && (r.Ledger != nil || r.Former != nil) {
		return nil, fmt.Errorf("%w: a record of version %d has no ledger", ErrCorrupt, version)
	}
	if r.Jobs == nil {
		r.Jobs = map[string]*jobRecord{}
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return r, nil
}

func (r *record) check() error {
	for name, j := range r.Jobs {
		switch {
		case j == nil:
			return fmt.Errorf("job %q is empty", name)
		case !(j.Delta > 0 && j.Delta < 1) || j.Rounds < 1 || j.Released < 0 || j.Released > j.Rounds:
			return fmt.Errorf("job %q: delta %v, %d of %d rounds", name, j.Delta, j.Released, j.Rounds)
		}
		for i, a := range j.Attempts {
			if a.Round < 1 || a.Round > j.Rounds || a.Attempt < 1 || a.Reserved < 0 || !a.Outcome.known() ||
				i > 0 && !j.Attempts[i-1].before(a.Round, a.Attempt) {
				return fmt.Errorf("job %q: attempt %d of round %d", name, a.Attempt, a.Round)
			}
		}
	}
	if err := r.checkLedgers(); err != nil {
		return err
	}
	_, err := r.spent()
	return err
}

// checkLedgers reads the checkpoints, too.
func (r *record) checkLedgers() error {
	all := slices.Clone(r.Former)
	if r.Ledger != nil || len(all) > 0 {
		all = append(all, r.Ledger)
	}
	origins := map[string]bool{}
	for _, w := range all {
		if w == nil {
			return errors.New("a ledger is missing")
		}
		if err := w.open(); err != nil {
			return err
		}
		if origins[w.checkpoint.Origin] {
			return fmt.Errorf("ledger %.64q stands twice", w.checkpoint.Origin)
		}
		origins[w.checkpoint.Origin] = true
	}
	return nil
}

// follows is what was witnessed of the ledger that a device follows, nil if nothing was:
// of the one on record, unless pin is the key of one of another origin.
func (r *record) follows(pin string) *witnessed {
	key, err := ledger.ParseKey(pin)
	if err != nil || r.Ledger == nil || key.Name() == r.Ledger.checkpoint.Origin {
		return r.Ledger
	}
	for _, w := range r.Former {
		if w.checkpoint.Origin == key.Name() {
			return w
		}
	}
	return nil
}

// witness returns a clone that follows w. One of another origin that was followed before
// is kept; what was reserved in it is not in this one.
func (r *record) witness(w *witnessed) *record {
	next := r.clone()
	if r.Ledger != nil && r.Ledger.checkpoint.Origin != w.checkpoint.Origin {
		next.Former = append(slices.Clone(r.Former), r.Ledger)
		next.Former = slices.DeleteFunc(next.Former, func(f *witnessed) bool { return f.checkpoint.Origin == w.checkpoint.Origin })
		for name := range next.Jobs {
			for i := range next.job(name).Attempts {
				next.Jobs[name].Attempts[i].Reserved = 0
			}
		}
	}
	next.Ledger = w
	return next
}

func (d *disclosure) before(round, attempt int) bool {
	return d.Round < round || d.Round == round && d.Attempt < attempt
}

// readRecord returns the record, or an empty one where there is no file.
func readRecord(path string) (*record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &record{Jobs: map[string]*jobRecord{}}, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := decodeRecord(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (r *record) clone() *record {
	next := *r
	next.Jobs = maps.Clone(r.Jobs)
	return &next
}

// job returns a clone's job, to be changed.
func (r *record) job(name string) *jobRecord {
	j := *r.Jobs[name]
	j.Attempts = slices.Clone(j.Attempts)
	r.Jobs[name] = &j
	return &j
}

// spent is all that was disclosed. Fails with accounting.ErrOverflow.
func (r *record) spent() (accounting.NanoRho, error) {
	var sum accounting.NanoRho
	for _, j := range r.Jobs {
		s, err := j.spent()
		if err != nil {
			return 0, err
		}
		if sum, err = sum.Add(s); err != nil {
			return 0, err
		}
	}
	return sum, nil
}

func (j *jobRecord) spent() (sum accounting.NanoRho, err error) {
	for _, a := range j.Attempts {
		if sum, err = sum.Add(a.Charge); err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// attempt returns what was disclosed to an attempt, nil if nothing was.
func (j *jobRecord) attempt(round, attempt int) *disclosure {
	for i := range j.Attempts {
		if a := &j.Attempts[i]; a.Round == round && a.Attempt == attempt {
			return a
		}
	}
	return nil
}

// attempt returns what was disclosed to an attempt, nil if nothing was.
func (r *record) attempt(k attemptKey) *disclosure {
	j := r.Jobs[k.job]
	if j == nil {
		return nil
	}
	return j.attempt(k.round, k.attempt)
}

// conflict says what contradicts what was seen before; empty is nothing.
func (j *jobRecord) conflict(spec digest, version int, state digest) string {
	if spec != j.Spec {
		return fmt.Sprintf("the specification is %.8v, and was %.8v", spec, j.Spec)
	}
	seen := append([]disclosure{{Round: j.Released + 1, State: j.State}}, j.Attempts...)
	for _, a := range seen {
		if a.Round-1 == version && a.State != state {
			return fmt.Sprintf("model %d is %.8v, and was %.8v", version, state, a.State)
		}
	}
	return ""
}
