package client

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// Outcome is how an attempt ended for this device.
type Outcome string

// Outcomes. All but the first say that the attempt was charged for nothing.
const (
	Contributed Outcome = "contributed" // a server acknowledged it: it is in the sum
	Over        Outcome = "over"        // the attempt ended without it
	Rejected    Outcome = "rejected"    // no server takes it
	Lost        Outcome = "lost"        // it was damaged on disk, and is not made twice
	Elsewhere   Outcome = "elsewhere"   // the sum has another one under this identity
)

func (o Outcome) known() bool {
	switch o {
	case "", Contributed, Over, Rejected, Lost, Elsewhere:
		return true
	}
	return false
}

// Summary is what a Sync did.
type Summary struct {
	Jobs []JobSummary `json:"jobs"` // in order of their names
	// Finished says that every job is released to its last round, and the
	// personal models are those of it; false while no job is known.
	Finished bool `json:"finished"`
}

// JobSummary is what a Sync did for one job.
type JobSummary struct {
	Job string
	// Round and Attempt that it took part in, or would not; 0 if none was open.
	Round, Attempt int
	// Outcome is empty while it is open: the contribution waits to be sent, or
	// Err is why there is none.
	Outcome Outcome
	Earlier bool               // the outcome is an earlier Sync's
	Charge  accounting.NanoRho // that this Sync put on the record
	// Model is the version of the personal model, -1 without one; Updated if this
	// Sync fitted it.
	Model   int
	Updated bool
	// Err is what kept it from taking part, or from hearing of it.
	Err error
	// Samples is what is wrong with the user's samples. It stays on the device.
	Samples error
}

// MarshalJSON gives errors as text.
func (s JobSummary) MarshalJSON() ([]byte, error) {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	return json.Marshal(struct {
		Job     string             `json:"job"`
		Round   int                `json:"round,omitempty"`
		Attempt int                `json:"attempt,omitempty"`
		Outcome Outcome            `json:"outcome,omitempty"`
		Earlier bool               `json:"earlier,omitempty"`
		Charge  accounting.NanoRho `json:"nano_rho,string,omitempty"`
		Model   int                `json:"model"`
		Updated bool               `json:"updated,omitempty"`
		Err     string             `json:"error,omitempty"`
		Samples string             `json:"samples_error,omitempty"`
	}{s.Job, s.Round, s.Attempt, s.Outcome, s.Earlier, s.Charge, s.Model, s.Updated, text(s.Err), text(s.Samples)})
}

// open reports whether there is something left to try.
func (s JobSummary) open() bool {
	return s.Err != nil && s.Outcome == "" && !final(s.Err)
}

// final reports whether an error holds of an attempt for as long as it is open.
func final(err error) bool {
	for _, f := range []error{ErrCap, ErrBudget, ErrReservation, ErrTooLarge, ErrSpec, ErrDeclined, ErrTwoHistories, ErrBackwards, ErrUnknownJob} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// job is the summary of a job.
func (s *syncing) job(name string) *JobSummary {
	j := s.jobs[name]
	if j == nil {
		j = &JobSummary{Job: name, Model: -1}
		s.jobs[name] = j
	}
	return j
}

func (s *syncing) summary() *Summary {
	out := &Summary{Jobs: []JobSummary{}, Finished: true}
	records := s.record.Load().Jobs
	for name := range records {
		if s.wanted(name) {
			s.job(name)
			out.Finished = out.Finished && s.upToDate(name)
		}
	}
	for name, j := range s.jobs {
		if f, err := s.model(name); err == nil {
			j.Model = f.version
		}
		log := s.log.With("job", name, "round", j.Round, "attempt", j.Attempt)
		switch {
		case j.Err != nil:
			log.Warn("did not take part to the end", "outcome", j.Outcome, "error", j.Err)
		case j.Outcome != "" && !j.Earlier:
			log.Info("settled", "outcome", j.Outcome, "charge", j.Charge)
		}
		out.Finished = out.Finished && records[name] != nil
		out.Jobs = append(out.Jobs, *j)
	}
	slices.SortFunc(out.Jobs, func(a, b JobSummary) int { return strings.Compare(a.Job, b.Job) })
	out.Finished = out.Finished && len(out.Jobs) > 0
	return out
}
