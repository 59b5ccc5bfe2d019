package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"

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

// deltaMeans compares delta with 1/n, n being the users of one full round: how many a job
// has in all no ledger says.
func deltaMeans(s *ledger.Specification) string {
	times := s.Delta * float64(s.RoundSize)
	text := fmt.Sprintf("at least %.3g times 1/n: the job has at least n = %d users once a round is full", times, s.RoundSize)
	if times >= 1 {
		text += ", and the whole contribution of one of them may be published"
	}
	return text
}

// Found says how much epsilon is at the least, and on what condition, with numbers as
// write has them. No attack bounds it from above: Upper is how far this one reaches.
func (c *Canary) Found(write func(float64) string) string {
	text := "at least " + write(c.Lower) + ", if the noise is Gaussian"
	if c.Passed {
		text += " (the tests of its shape found nothing against that)"
	}
	if c.Upper > 0 {
		text += "; the attack reaches at most " + write(c.Upper)
	}
	return text
}

// inCluster is in the How of each measurement of a cluster's own test jobs.
const inCluster = " of the cluster "

// howMeans says what a measurement is not of, empty if it is of a cluster.
func howMeans(how string) string {
	if strings.Contains(how, inCluster) {
		return ""
	}
	return "in the auditor's own program, with this specification: not this cluster's noise"
}

// Misclaimed reports whether a measurement is of another claim than the ledger's: by more
// than one percent.
func (c *Canary) Misclaimed() bool { return math.Abs(c.Claimed-c.Charged) > 0.01*c.Charged }

// Contradicts reports whether the lower bound is above the claim. If no test failed, that
// may be chance, with the probability that the confidence leaves; so such a measurement
// can be put on record, and is never hidden by a better one.
func (c *Canary) Contradicts() bool { return c.Lower > c.Claimed }

// AheadMeans is the warning that goes with Ahead, empty without.
func (l *Ledger) AheadMeans() string {
	switch l.Ahead {
	case 0:
		return ""
	case 1:
		return "the last record is dated in the future: the clock of a server, or this one, is wrong, and the record's time says nothing but the order"
	}
	return fmt.Sprintf("the last %d records are dated in the future: the clock of a server, or this one, is wrong, and their times say nothing but the order", l.Ahead)
}

// trust says who sees what. The figures are those of the first round.
func trust(j *ledger.Job) Trust {
	s := &j.Specification
	t := Trust{Mode: s.Trust}
	released := "whoever fetches released states sees them with all of the noise: towards them the figures here hold"
	switch s.Trust {
	case ledger.TrustCentral:
		t.SeesBefore = []string{
			"the server that receives a contribution sees it without any noise: it adds that user's share itself",
			"all servers, and whoever reads their disks, see sums of single batches, with as many shares of noise as there are contributions in the batch",
			released,
		}
		t.Collude = []string{
			"the servers must not be anybody's accomplice: the figures here do not hold towards them, or towards whoever breaks into one",
			"other participants need not be trusted: the servers draw all of the noise, so nobody else knows any of it",
		}
	case ledger.TrustLocal:
		t.SeesBefore = []string{
			"nobody: a contribution leaves its device with all of the noise, and the figures here hold towards the servers as well",
			"whoever fetches a released state sees a sum that is noisier still",
		}
		t.Collude = []string{"nobody need be trusted but the user's own device and the program on it"}
	default:
		m := s.Mechanism(1)
		share := math.Ldexp(float64(m.Sigma), -20) / sensitivity(&m)
		t.SeesBefore = []string{
			fmt.Sprintf("the server that receives a contribution sees it with that user's share of the noise alone, 1 of %d: a noise multiplier of %.3g in the first round, where the sum has %.3g", s.NMin, share, multiplier(j, &m)),
			"all servers, and whoever reads their disks, see sums of single batches, with as many shares of noise as there are contributions in the batch",
			released,
		}
		t.Collude = []string{
			"the servers must not be anybody's accomplice: there is no secure aggregation, so they see single contributions",
			fmt.Sprintf("%d of the contributions in a sum must carry their honest noise: participants who leave theirs out, or tell it to others, take it away", s.NMin),
			fmt.Sprintf("the servers must count %d real users at least: those they make up add noise that they know", s.NMin),
		}
	}
	return t
}

// How parameters come about.
const (
	byOperator = "by the operator, before the first round"
	byLayout   = "computed from the method's parameters"
)

// parameters of a job's specification, and how each was chosen.
func parameters(j *ledger.Job, price *pricing) []Parameter {
	s := &j.Specification
	out := []Parameter{
		{"method", s.Method, byOperator},
	}
	out = append(out, methodParameters(s)...)
	out = append(out,
		Parameter{"adjacency", s.Adjacency.String(), byOperator},
		Parameter{"trust", s.Trust, byOperator},
		Parameter{"delta", fmt.Sprintf("%g", s.Delta), byOperator},
		Parameter{"budget", fmt.Sprintf("%.6g rho", s.Budget.Rho()), fmt.Sprintf("computed, as the most that Gaussian releases may cost for epsilon %.4g at delta, which the operator chose", price.of(s.Budget).Epsilon)},
		Parameter{"n_min", fmt.Sprint(s.NMin), byOperator},
		Parameter{"round_size", fmt.Sprint(s.RoundSize), byOperator},
		Parameter{"deadline", fmt.Sprintf("%g s", float64(s.Deadline)/1000), byOperator},
		Parameter{"lattice", fmt.Sprintf("spacing 2^-%d, modulo 2^%d", s.Lattice.ScaleBits, s.Lattice.ModulusBits), "the spacing fixed in the program, far below any noise, and the modulus computed, as the least for the sum of a full round"},
		Parameter{"initial state", stateZero(j), byLayout},
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
			Parameter{"charge of " + r.Kind, fmt.Sprintf("%.6g rho", r.Charge.Rho()), "computed, as shares of the budget by a schedule of public numbers"},
			Parameter{"noise of " + r.Kind, fmt.Sprintf("%.6g", deviation(j, &m)), "computed, as the least noise that the charge pays for" + noiseOf(s)},
			Parameter{"largest coordinate of " + r.Kind, fmt.Sprint(r.Largest), "computed from clip and noise, so that no honest contribution has a larger one"},
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
		return "fixed by the method, as a device divides its contribution by the norm that it has; the data's scales come from noised histograms that are part of releases, and paid for with them"
	}
	return "fixed in advance"
}

// Parameters of AMHT-LRS that are computed where the operator leaves them out.
var amhtLRSHow = map[string]string{
	"rounds": byOperator + ", or the program's 6",
	"sketch": byOperator + ", or computed from dim and rank",
}

// methodParameters are the fields of the method's parameters, in their order.
func methodParameters(s *ledger.Specification) []Parameter {
	var out []Parameter
	add := func(name, value, how string) {
		out = append(out, Parameter{ledger.OneLine(name), ledger.OneLine(value), how})
	}
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
		add(field, text.String(), how)
	}
	return out
}

// notCovered is what no ledger can show.
func notCovered(h *ledger.History) []string {
	out := []string{
		"Programs: a ledger holds what servers said they did. That devices and servers run the program that is published, and draw the noise that it draws, is measured by the canary, not proved.",
		"Malicious clients: a contribution is bounded in norm and otherwise whatever its sender likes. That changes what is learned, not what it gives away of others; noise that is left out does, as said under trust.",
		"Taking part: the servers know who took part, when, and from which address. It is not counted, and no privacy is claimed for not being asked.",
		"Timing: how long a device or a server takes, and how its traffic looks.",
		"Users with several accounts or devices: the unit is one account. Who has k of them in every round has k^2 times the rho.",
		"Several ledgers: who takes part in jobs of other clusters, or of this one under another ledger, adds them up.",
		"How parameters were chosen: the ledger shows that they were fixed before the first round, and not what the operator had looked at by then.",
		"What an app does with a user's own data and predictions on the device.",
	}
	if len(h.Restored) > 0 {
		out = append(out, "Backups: this cluster went on from a backup. What the cluster before spent and released after that backup is not in this ledger; a checkpoint kept from then shows whether there was anything.")
	}
	if h.Before > 0 {
		out = append(out, fmt.Sprintf("Before the ledger: it was begun later than what it tells of. Its records up to %d say what the servers' state said then.", h.Before))
	}
	return out
}
