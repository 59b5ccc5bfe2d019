package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
)

const unit = "one user: everything that the user's device sends in all rounds of the job, failed attempts among them"

func adjacencyMeans(a dp.Adjacency) string {
	if a == dp.ReplaceOne {
		return "any one user's contributions are replaced by any others; how many took part is public"
	}
	return "any one user's contributions are replaced by zeros; how many took part is public"
}

// trust says who sees what. The figures are of the job's first release.
func trust(j *ledger.Job) Trust {
	s := &j.Specification
	t := Trust{Mode: s.Trust}
	m := j.Specification.Mechanism(1)
	share := math.Ldexp(float64(m.Sigma), -20) / sensitivity(&m)
	released := "whoever fetches a released state sees it with all of the noise: that, and no more, costs what this ledger says"
	honest := fmt.Sprintf("%d of the contributions in a sum must carry their honest noise: participants who leave theirs out, or tell it to others, take it away", s.NMin)
	switch s.Trust {
	case ledger.TrustCentral:
		t.SeesBefore = []string{
			"the server that receives a contribution sees it without any noise: it adds that user's share itself",
			"all servers, and whoever reads their disks, see sums of single batches, with as many shares of noise as there are contributions in the batch",
			released,
		}
		t.Collude = []string{
			"the servers must not be anybody's accomplice: the figures here do not hold towards them, or towards whoever breaks into one",
			fmt.Sprintf("the servers must count %d real users at least: those they make up add noise that they know", s.NMin),
		}
	case ledger.TrustLocal:
		t.SeesBefore = []string{
			"nobody: a contribution leaves its device with all of the noise, and the figures here hold towards the servers as well",
			"whoever fetches a released state sees a sum that is noisier still",
		}
		t.Collude = []string{"nobody need be trusted but the user's own device and the program on it"}
	default:
		t.SeesBefore = []string{
			fmt.Sprintf("the server that receives a contribution sees it with that user's share of the noise alone: a noise multiplier of %.3g, where the sum has %.3g. That is %d times the rho, and hides little", share, multiplier(j, &m), s.NMin),
			"all servers, and whoever reads their disks, see sums of single batches, with as many shares of noise as there are contributions in the batch",
			released,
		}
		t.Collude = []string{
			"the servers must not be anybody's accomplice: there is no secure aggregation, so they see single contributions",
			honest,
			fmt.Sprintf("the servers must count %d real users at least: those they make up add noise that they know", s.NMin),
		}
	}
	return t
}

// How parameters come about.
const (
	byOperator = "chosen by the operator before the first round, without looking at data"
	byLayout   = "follows from the method's parameters: no data are looked at"
)

// parameters of a job's specification, and how each was chosen.
func parameters(j *ledger.Job) []Parameter {
	s := &j.Specification
	price := newPricing(s).of(s.Budget)
	out := []Parameter{
		{"method", s.Method, byOperator},
	}
	out = append(out, methodParameters(s)...)
	out = append(out,
		Parameter{"adjacency", s.Adjacency.String(), byOperator},
		Parameter{"trust", s.Trust, byOperator},
		Parameter{"delta", fmt.Sprintf("%g", s.Delta), byOperator + fmt.Sprintf("; 1 over the round's size is %.2g", 1/float64(s.RoundSize))},
		Parameter{"budget", fmt.Sprintf("%.6g rho", s.Budget.Rho()), fmt.Sprintf("computed: the most rho that Gaussian releases may cost for epsilon %.4g at delta, which the operator chose before the first round", price.Epsilon)},
		Parameter{"n_min", fmt.Sprint(s.NMin), byOperator + ": the least contributions to a release, and the shares that make up its noise"},
		Parameter{"round_size", fmt.Sprint(s.RoundSize), byOperator},
		Parameter{"deadline", fmt.Sprintf("%g s", float64(s.Deadline)/1000), byOperator},
		Parameter{"lattice", fmt.Sprintf("spacing 2^-%d, modulo 2^%d", s.Lattice.ScaleBits, s.Lattice.ModulusBits), "the spacing is fixed in the program, far below any noise; the modulus is computed: the least that holds the sum of a full round"},
		Parameter{"initial state", stateZero(j), "computed from the method's parameters alone, before any data"},
	)
	kinds := make(map[string]bool)
	for i := range s.Releases {
		r := &s.Releases[i]
		if kinds[r.Kind] {
			continue
		}
		kinds[r.Kind] = true
		m := s.Mechanism(i + 1)
		out = append(out,
			Parameter{"length of " + r.Kind, fmt.Sprint(r.Length), byLayout},
			Parameter{"clip of " + r.Kind, fmt.Sprintf("%.6g", clip(&m)), clipHow(s)},
			Parameter{"charge of " + r.Kind, fmt.Sprintf("%.6g rho", r.Charge.Rho()), "computed: this release's share of the budget, by a schedule that depends on public numbers only"},
			Parameter{"noise of " + r.Kind, fmt.Sprintf("%.6g", deviation(j, &m)), "computed: the least noise that the charge pays for" + noiseOf(s)},
			Parameter{"largest coordinate of " + r.Kind, fmt.Sprint(r.Largest), "computed from the clip and the noise: no honest contribution has a larger one"},
		)
	}
	return out
}

func noiseOf(s *ledger.Specification) string {
	if s.Trust == ledger.TrustLocal {
		return ", all of it by each contribution"
	}
	return fmt.Sprintf(", by %d contributions together", s.NMin)
}

func stateZero(j *ledger.Job) string {
	if j.State == (ledger.Digest{}) {
		return "older than the ledger"
	}
	return j.State.String()
}

// The method that this package can explain.
const amhtLRS = "amht-lrs"

func clipHow(s *ledger.Specification) string {
	if s.Method == amhtLRS {
		return "fixed in advance by the method: each device divides its contribution by its own norm, so there is no clip to learn; units of the data come from noised histograms within releases that were paid for"
	}
	return "fixed in advance by the specification: no data are looked at"
}

// Parameters of AMHT-LRS that are computed where the operator leaves them out.
var amhtLRSHow = map[string]string{
	"rounds": byOperator + ", or left at the program's 6",
	"sketch": "computed from dim and rank where there are too many features for full moments, unless the operator chose it",
}

// methodParameters are the fields of the method's parameters, in their order.
func methodParameters(s *ledger.Specification) []Parameter {
	var out []Parameter
	d := json.NewDecoder(bytes.NewReader(s.Parameters))
	if _, err := d.Token(); err != nil {
		return nil
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return out
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return out
		}
		var text bytes.Buffer
		if err := json.Compact(&text, value); err != nil {
			return out
		}
		field := fmt.Sprint(name)
		how := byOperator
		if chosen := amhtLRSHow[field]; s.Method == amhtLRS && chosen != "" {
			how = chosen
		}
		out = append(out, Parameter{field, text.String(), how})
	}
	return out
}

// notCovered is what no ledger can show.
func notCovered(h *ledger.History) []string {
	out := []string{
		"Programs: a ledger holds what servers said they did. That devices and servers run the program that is published, and draw the noise that it draws, is measured by the canary, not proved.",
		"Malicious clients: a contribution is bounded in norm and otherwise whatever its sender likes. Privacy does not depend on it; the quality of what is learned does.",
		"Taking part: the servers know who took part, when, and from which address. It is not counted, and no privacy is claimed for not being asked.",
		"Timing: how long a device or a server takes, and how its traffic looks.",
		"Users with several accounts or devices: the unit is one account. Who has k of them in every round has k^2 times the rho.",
		"Several ledgers: who takes part in jobs of other clusters, or of this one under another ledger, adds them up.",
		"What an app does with a user's own data and predictions on the device.",
	}
	if len(h.Restored) > 0 {
		out = append(out, "Backups: this cluster went on from a backup. What the cluster before spent and released after that backup is not in this ledger; a checkpoint kept from then shows whether there was anything.")
	}
	for _, j := range h.Jobs {
		if j.State == (ledger.Digest{}) {
			return append(out, "Before the ledger: it was begun when there were jobs. Their first records say what the servers' state said then.")
		}
	}
	return out
}
