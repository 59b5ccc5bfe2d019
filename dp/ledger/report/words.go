package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

const unit = "one user: everything that the user's device sends in all rounds of the job, failed attempts among them"

func adjacencyMeans(a dp.Adjacency) string {
	if a == dp.ReplaceOne {
		return "any one user's contributions are replaced by any others; how many took part is public"
	}
	return "any one user's contributions are replaced by zeros; how many took part is public"
}

// population is how many users a ledger knows of: how many a job has in all none says.
func population(j *ledger.Job) int {
	n := 0
	for i := range j.Attempts {
		if a := &j.Attempts[i]; a.Status == ledger.StatusReleased {
			n = max(n, a.Members)
		}
	}
	if n == 0 {
		return j.Specification.NMin
	}
	return n
}

// CompareDelta compares delta with 1/n, with numbers as write has them.
func (j *Job) CompareDelta(write func(float64) string) string {
	n := fmt.Sprintf("n = %d, the most users in a release on record", j.Population)
	if j.Released == 0 {
		n = fmt.Sprintf("n = %d, n_min, as nothing is released yet", j.Population)
	}
	text := fmt.Sprintf("at least %s times 1/n: %s", write(j.DeltaTimesN), n)
	if j.DeltaTimesN >= 1 {
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

// HowMeans says what a canary's measurement is not of, empty if it is of a cluster.
func HowMeans(how string) string {
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

// CarriedMeans says what there is of before the ledger began, empty for nothing.
func (l *Ledger) CarriedMeans() string {
	switch l.Carried {
	case 0:
		return ""
	case 1:
		return "1 record is from before the ledger began: its time, and what came before what, are the operator's word"
	}
	return fmt.Sprintf("%d records are from before the ledger began: their times and their order are the operator's word", l.Carried)
}

// UnderWay reports whether an attempt is open.
func (j *Job) UnderWay() bool {
	n := len(j.Attempts)
	return n > 0 && j.Attempts[n-1].Status == string(ledger.StatusOpen)
}

// Over reports whether nothing more can be spent on a job.
func (j *Job) Over() bool { return j.Status == "finished" || j.Status == "closed" }

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
	said       = "said by the operator" // nothing recomputes the choice
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
		Parameter{"budget", fmt.Sprintf("%.6g rho", s.Budget.Rho()), fmt.Sprintf("%s: what epsilon %.4g costs, at delta", byOperator, price.of(s.Budget).Epsilon)},
		Parameter{"n_min", fmt.Sprint(s.NMin), byOperator},
		Parameter{"round_size", fmt.Sprint(s.RoundSize), byOperator},
		Parameter{"deadline", fmt.Sprintf("%g s", float64(s.Deadline)/1000), byOperator},
		Parameter{"lattice", fmt.Sprintf("spacing 2^-%d, modulo 2^%d", s.Lattice.ScaleBits, s.Lattice.ModulusBits), said},
		Parameter{"initial state", stateZero(j), said},
	)
	return append(out, releaseParameters(j)...)
}

// releaseParameters are those of each kind of release: where they differ within a kind,
// each value with its rounds.
func releaseParameters(j *ledger.Job) []Parameter {
	s := &j.Specification
	type key struct {
		kind  string
		field int // in the order below
		Parameter
	}
	type value struct {
		key
		rounds []int
	}
	var values []*value
	known := make(map[key]*value)
	first, total := make(map[string]int), make(map[string]int) // rounds, by kind
	alike := make(map[ledger.Release][]*value)                 // releases are much alike
	for i := range s.Releases {
		r := &s.Releases[i]
		its, seen := alike[*r]
		if !seen {
			m := s.Mechanism(i + 1)
			for field, p := range []Parameter{
				{"length", fmt.Sprint(r.Length), said},
				{"clip", fmt.Sprintf("%.6g", clip(&m)), clipHow(s)},
				{"charge", fmt.Sprintf("%.6g rho", r.Charge.Rho()), said + "; that it pays for the noise is recomputed"},
				{"noise", fmt.Sprintf("%.6g", deviation(j, &m)), noiseHow(j, &m, r.Charge)},
				{"largest coordinate", fmt.Sprint(r.Largest), said},
			} {
				k := key{r.Kind, field, p}
				if known[k] == nil {
					known[k] = &value{key: k}
					values = append(values, known[k])
				}
				its = append(its, known[k])
			}
			alike[*r] = its
		}
		if total[r.Kind]++; total[r.Kind] == 1 {
			first[r.Kind] = i
		}
		for _, v := range its {
			v.rounds = append(v.rounds, i+1)
		}
	}
	slices.SortStableFunc(values, func(a, b *value) int {
		return cmp.Or(cmp.Compare(first[a.kind], first[b.kind]), cmp.Compare(a.field, b.field))
	})
	out := make([]Parameter, len(values))
	for i, v := range values {
		out[i] = v.Parameter
		out[i].Name += " of " + v.kind
		if len(v.rounds) < total[v.kind] {
			out[i].Name += " (" + roundsText(v.rounds) + ")"
		}
	}
	return out
}

// roundsText writes rounds, which ascend: "rounds 1-3, 7".
func roundsText(all []int) string {
	if len(all) == 1 {
		return fmt.Sprintf("round %d", all[0])
	}
	text := "rounds "
	for i := 0; i < len(all); {
		last := i
		for last+1 < len(all) && all[last+1] == all[last]+1 {
			last++
		}
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(all[i])
		if last > i {
			text += fmt.Sprintf("-%d", all[last])
		}
		i = last + 1
	}
	return text
}

// noiseHow says how the noise is to its charge, which Verify found to pay for it.
func noiseHow(j *ledger.Job, m *ledger.Mechanism, charge accounting.NanoRho) string {
	z := multiplier(j, m)
	how := "recomputed: more than the least that the charge pays for"
	if charge.Rho() <= (1+leastNoise)/(2*z*z) {
		how = "recomputed: the least that the charge pays for"
	}
	if j.Specification.Trust == ledger.TrustLocal {
		return how + ", all of it by each contribution"
	}
	return fmt.Sprintf("%s, by %d contributions together", how, m.NMin)
}

// leastNoise is how far a charge may be above what its noise costs, as a share, where that
// is the least: noise is in steps, and charges leave room for rounding.
const leastNoise = 1e-5

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
		return said + ", and fixed by the method: a device divides its contribution by the norm that it has; the data's scales come from noised histograms that are part of releases, and paid for with them"
	}
	return said
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
