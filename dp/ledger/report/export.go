package report

import (
	"io"

	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Exported is a history's mechanisms, for other accountants (FORMAT.md).
type Exported struct {
	Version int           `json:"version"`
	Origin  string        `json:"origin"`
	Records int64         `json:"records"`
	Root    string        `json:"root"` // hex
	Jobs    []ExportedJob `json:"jobs"`
}

// ExportedJob is one job's mechanisms, and what this program makes of them.
type ExportedJob struct {
	Job        string              `json:"job"`
	Adjacency  string              `json:"adjacency"` // that noise multipliers are over the sensitivity of
	Delta      float64             `json:"delta"`
	Mechanisms []ExportedMechanism `json:"mechanisms"`
	Epsilon    []Accountant        `json:"epsilon"`
}

// ExportedMechanism is what one attempt was charged for.
type ExportedMechanism struct {
	Round      int                `json:"round"`
	Attempt    int                `json:"attempt"`
	Record     int64              `json:"record"`
	Status     string             `json:"status"`
	Event      string             `json:"event"`                      // GaussianDpEvent or ZCDpEvent
	Multiplier float64            `json:"noise_multiplier,omitempty"` // of a GaussianDpEvent, to the nearest double
	Rho        float64            `json:"rho,omitempty"`              // of a ZCDpEvent
	Charge     accounting.NanoRho `json:"charge_nano_rho,string"`
}

// Export returns all mechanisms that were charged, failed attempts' among them, as
// events of Google's dp_accounting.
func Export(h *ledger.History) (*Exported, error) {
	out := &Exported{
		Version: Version,
		Origin:  h.Checkpoint.Origin, Records: h.Checkpoint.Size, Root: h.Checkpoint.Root.String(),
		Jobs: make([]ExportedJob, 0, len(h.Jobs)),
	}
	reckoner := newReckoner()
	for _, j := range h.Jobs {
		job := ExportedJob{
			Job: j.Name, Adjacency: j.Specification.Adjacency.String(), Delta: j.Specification.Delta,
			Mechanisms: make([]ExportedMechanism, 0, len(j.Attempts)),
		}
		for i := range j.Attempts {
			a := &j.Attempts[i]
			m := ExportedMechanism{
				Round: a.Round, Attempt: a.Attempt, Record: a.Record, Status: string(a.Status),
				Event: "GaussianDpEvent", Multiplier: multiplier(j, &a.Mechanism), Charge: a.Charge,
			}
			if coarse(j, &a.Mechanism) {
				m.Event, m.Multiplier, m.Rho = "ZCDpEvent", 0, a.Charge.Rho()
			}
			job.Mechanisms = append(job.Mechanisms, m)
		}
		var err error
		if job.Epsilon, err = reckoner.answers(j).All(); err != nil {
			return nil, err
		}
		out.Jobs = append(out.Jobs, job)
	}
	return out, nil
}

// WriteJSON writes it as the format page says.
func (e *Exported) WriteJSON(w io.Writer) error { return writeJSON(w, e) }
