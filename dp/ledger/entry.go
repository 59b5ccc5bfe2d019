package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// Entry is one event: what a record of the log says.
type Entry interface {
	// At is its time, as Stamp has it.
	At() int64

	kind() string
	stamp() *Stamp
}

// Stamp begins every record.
type Stamp struct {
	Kind string `json:"record"`
	// Time is when it was proposed, in milliseconds since 1970, by the clock of
	// the server that proposed it; never earlier than the record before.
	Time int64 `json:"time_ms"`
}

// At returns the time.
func (s *Stamp) At() int64 { return s.Time }

func (s *Stamp) stamp() *Stamp { return s }

// MaxTime is the latest time that a record may have: the end of the year 9999, after which
// dates are written otherwise.
const MaxTime = 253_402_300_799_999

// Digest is a SHA-256 sum, in hexadecimal digits as text.
type Digest [sha256.Size]byte

// Format is that of the records that this package writes and reads (FORMAT.md).
const Format = 1

// Begun is a log's first record.
type Begun struct {
	Stamp
	Origin string `json:"origin"` // the log's name: that of its keys, and the first line of its checkpoints
	Key    string `json:"key"`    // the first key that signs checkpoints, as note.NewVerifier takes it
	Format int    `json:"format"` // of the records after it
	// History is how many of the records after it say what there was before, with
	// its time: the log began when there were jobs, or after backups were taken up.
	History int64 `json:"history"`
}

// KeyRotated names the key that signs the checkpoints of every log that has this
// record: one that never signed before. Endorsement is a note by the key before (see
// Endorse), which is public and good for ever: if a key could come back, so could every
// key that it once endorsed.
type KeyRotated struct {
	Stamp
	Key         string `json:"key"`
	Endorsement string `json:"endorsement"`
}

// JobCreated fixes a job's public parameters: the specification, whose bytes a
// bundle has beside the records, and the state before the first release: zero where
// the log began after that, and nobody knew any more (Begun.History).
type JobCreated struct {
	Stamp
	Job           string             `json:"job"`
	Specification Digest             `json:"specification"`
	State         Digest             `json:"state"`
	Budget        accounting.NanoRho `json:"budget_nano_rho,string"`
}

// AttemptCharged reserves a round and charges for it, before anybody is asked for
// data. The two are one event: a reservation is spent, and nothing is refunded.
type AttemptCharged struct {
	Stamp
	Job           string             `json:"job"`
	Round         int                `json:"round"`
	Attempt       int                `json:"attempt"`
	Specification Digest             `json:"specification"`
	State         Digest             `json:"state"` // what contributions are computed from
	Charge        accounting.NanoRho `json:"charge_nano_rho,string"`
	Spent         accounting.NanoRho `json:"spent_nano_rho,string"` // by the job, this charge among it
}

// Mechanism is what a release's privacy rests on, in lattice units where it has any.
type Mechanism struct {
	Length      int          `json:"length"`       // coordinates
	Clip        uint64       `json:"clip,string"`  // largest L2 norm of a contribution
	Sigma       uint64       `json:"sigma,string"` // noise that one contribution carries, in 2^-20 lattice units
	ScaleBits   uint         `json:"scale_bits"`   // a lattice unit is 2^-ScaleBits
	ModulusBits uint         `json:"modulus_bits"` //
	NMin        int          `json:"n_min"`        // shares that make up the noise that is charged
	Adjacency   dp.Adjacency `json:"adjacency"`    //
	Trust       string       `json:"trust"`        //
	Sampler     string       `json:"sampler"`      // SamplerNone: nothing is claimed for not being asked
}

// SamplerNone is Mechanism.Sampler of a round that anybody may take part in: the
// servers know who did, so there is no amplification by sampling.
const SamplerNone = "none"

// Released publishes a state: the sum of Members contributions went into it.
type Released struct {
	Stamp
	Job       string             `json:"job"`
	Round     int                `json:"round"`
	Attempt   int                `json:"attempt"`
	Members   int                `json:"members"`
	Sum       Digest             `json:"sum"`
	State     Digest             `json:"state"`
	Mechanism Mechanism          `json:"mechanism"`
	Charge    accounting.NanoRho `json:"charge_nano_rho,string"`
}

// Failed ends an attempt without a release. Its charge stays spent. Why is one line of up
// to 1,024 bytes.
type Failed struct {
	Stamp
	Job     string `json:"job"`
	Round   int    `json:"round"`
	Attempt int    `json:"attempt"`
	Members int    `json:"members"`
	Why     string `json:"why"`
}

// JobClosed says that nothing more is spent on a job: every round is released, or an
// operator closed it.
type JobClosed struct {
	Stamp
	Job      string             `json:"job"`
	Released int                `json:"released"` // rounds
	Spent    accounting.NanoRho `json:"spent_nano_rho,string"`
}

// Restored says that the log goes on from a backup, for the Era-th time: what came
// after the backup is not in it.
type Restored struct {
	Stamp
	Era int `json:"era"`
}

// CanaryMeasured is a measurement that an auditor or an operator put on record: that a
// job's noise was tested, and between which bounds the epsilon is that it gives away.
type CanaryMeasured struct {
	Stamp
	Job        string `json:"job"`
	By         string `json:"by"` // the certificate's role and name
	Claimed    uint64 `json:"claimed_micro_epsilon"`
	Lower      uint64 `json:"lower_micro_epsilon"`
	Upper      uint64 `json:"upper_micro_epsilon"` // 0: none
	Delta      string `json:"delta"`               // as text, at which they hold
	Confidence uint64 `json:"confidence_ppm"`      // of each bound, in millionths
	Trials     uint64 `json:"trials"`
	Passed     bool   `json:"passed"`      // every test of the measurement
	Measured   int64  `json:"measured_ms"` // when, in milliseconds since 1970
	How        string `json:"how"`         // what was measured and by what: a cluster, or a program by itself
}

// Bounds of what a record has for people to read, in bytes.
const (
	maxOrigin = 256
	maxBy     = 256
	maxHow    = 256
	maxWhy    = 1024
)

// Check returns an error that wraps ErrEntry if a measurement is none that can be put on
// record. Whether there is such a job is for others to say.
func (c *CanaryMeasured) Check() error {
	delta, err := strconv.ParseFloat(c.Delta, 64)
	switch {
	case !oneLine(c.By, maxBy):
		return fmt.Errorf("%w: a measurement by nobody: want one line of 1 to %d bytes", ErrEntry, maxBy)
	case !oneLine(c.How, maxHow):
		return fmt.Errorf("%w: a measurement that does not say of what: want one line of 1 to %d bytes", ErrEntry, maxHow)
	case c.Upper != 0 && c.Upper < c.Lower:
		return fmt.Errorf("%w: a measurement whose upper bound, %d, is below its lower one, %d", ErrEntry, c.Upper, c.Lower)
	case err != nil || !(delta > 0 && delta < 1) || len(c.Delta) > 32:
		return fmt.Errorf("%w: a measurement at delta %.32q", ErrEntry, c.Delta)
	case c.Confidence == 0 || c.Confidence >= 1_000_000:
		return fmt.Errorf("%w: a measurement of confidence %d ppm", ErrEntry, c.Confidence)
	case c.Trials == 0:
		return fmt.Errorf("%w: a measurement without trials", ErrEntry)
	case c.Measured < 0:
		return fmt.Errorf("%w: a measurement before 1970", ErrEntry)
	}
	return nil
}

func (*Begun) kind() string          { return "ledger" }
func (*KeyRotated) kind() string     { return "key" }
func (*JobCreated) kind() string     { return "job" }
func (*AttemptCharged) kind() string { return "attempt" }
func (*Released) kind() string       { return "release" }
func (*Failed) kind() string         { return "failure" }
func (*JobClosed) kind() string      { return "closed" }
func (*Restored) kind() string       { return "restored" }
func (*CanaryMeasured) kind() string { return "canary" }

var kinds = map[string]func() Entry{
	"ledger":   func() Entry { return new(Begun) },
	"key":      func() Entry { return new(KeyRotated) },
	"job":      func() Entry { return new(JobCreated) },
	"attempt":  func() Entry { return new(AttemptCharged) },
	"release":  func() Entry { return new(Released) },
	"failure":  func() Entry { return new(Failed) },
	"closed":   func() Entry { return new(JobClosed) },
	"restored": func() Entry { return new(Restored) },
	"canary":   func() Entry { return new(CanaryMeasured) },
}

// ErrEntry says that bytes are no record as this package writes it.
var ErrEntry = errors.New("ledger: no record")

// Encode returns an entry's record: one line of JSON, without its end.
func Encode(e Entry) []byte {
	e.stamp().Kind = e.kind()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		panic(err) // numbers and strings
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// OfKind reports whether a record says that it is one of e's kind, without reading the
// rest of it: to find the few in a long log.
func OfKind(record []byte, e Entry) bool {
	rest, ok := bytes.CutPrefix(record, []byte(`{"record":"`))
	return ok && bytes.HasPrefix(rest, []byte(e.kind()+`"`))
}

// Decode reads a record. One event has one record: what Encode would write
// differently is refused. Fails with ErrEntry.
func Decode(record []byte) (Entry, error) {
	const prefix = `{"record":"`
	rest, ok := bytes.CutPrefix(record, []byte(prefix))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 {
		return nil, fmt.Errorf("%w: it does not begin with its kind", ErrEntry)
	}
	made, known := kinds[string(rest[:end])]
	if !known {
		return nil, fmt.Errorf("%w: kind %.32q is unknown: a newer program may know it", ErrEntry, rest[:end])
	}
	e := made()
	if err := json.Unmarshal(record, e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEntry, mistyped(record, reflect.TypeOf(e).Elem(), err))
	}
	if !bytes.Equal(Encode(e), record) {
		return nil, fmt.Errorf("%w: not written as a record is", ErrEntry)
	}
	return e, nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return errors.New("a digest of another length")
	}
	_, err := hex.Decode(d[:], text)
	return err
}

func (d Digest) String() string { return hex.EncodeToString(d[:]) }
