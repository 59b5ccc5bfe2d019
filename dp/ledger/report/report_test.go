package report_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/ledger/report"
)

var update = flag.Bool("update", false, "write the expected reports anew")

// kept is the ledger that dp/ledger keeps, which has every kind of record.
func kept(t testing.TB) (*ledger.History, []byte) {
	t.Helper()
	const path = "../testdata/bundles/v1"
	file, err := os.ReadFile(path + ".zip")
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ledger.ReadBundle(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	h, err := ledger.Verify(b, string(public), ledger.Checkpoint{})
	if err != nil {
		t.Fatal(err)
	}
	return h, b.Checkpoint
}

func reportOf(t testing.TB, h *ledger.History, checkpoint []byte) *report.Report {
	t.Helper()
	r, err := report.New(h, checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// expect compares with a file of testdata. `-update` writes it.
func expect(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what was expected:\n%s", name, got)
	}
}

func TestText(t *testing.T) {
	h, checkpoint := kept(t)
	var text bytes.Buffer
	if err := reportOf(t, h, checkpoint).WriteText(&text); err != nil {
		t.Fatal(err)
	}
	expect(t, "ordinary.txt", text.Bytes())
	for i, line := range strings.Split(text.String(), "\n") {
		if line != strings.TrimRight(line, " ") {
			t.Errorf("line %d ends in spaces", i+1)
		}
	}
}

func TestJSON(t *testing.T) {
	h, checkpoint := kept(t)
	r := reportOf(t, h, checkpoint)
	var written bytes.Buffer
	if err := r.WriteJSON(&written); err != nil {
		t.Fatal(err)
	}
	expect(t, "ordinary.json", written.Bytes())
	back := new(report.Report)
	d := json.NewDecoder(&written)
	d.DisallowUnknownFields()
	if err := d.Decode(back); err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := back.WriteJSON(&again); err != nil {
		t.Fatal(err)
	}
	expect(t, "ordinary.json", again.Bytes())
}

// jobWith is a job that released every round, with these noise multipliers.
func jobWith(trust string, adjacency dp.Adjacency, nMin int, multipliers ...float64) *ledger.Job {
	const bound = 1 << 24
	j := &ledger.Job{Name: "made", State: ledger.Digest{1}, End: -1, Released: len(multipliers), Specification: ledger.Specification{
		Job: "made", Method: "amht-lrs", Parameters: json.RawMessage(`{"dim":50}`),
		Lattice: dp.Lattice{ScaleBits: 24, ModulusBits: 48}, Adjacency: adjacency, Trust: trust,
		NMin: nMin, RoundSize: nMin, Deadline: 1000, Delta: 1e-6,
	}}
	s := &j.Specification
	for i, z := range multipliers {
		sigma := z * adjacency.SensitivityFactor() * bound / math.Sqrt(float64(s.Parts()))
		charge, err := accounting.GaussianCharge(z, 1)
		if err != nil {
			panic(err)
		}
		charge += 2 // for the rounding of sigma
		s.Releases = append(s.Releases, ledger.Release{Kind: "update", Length: 300, Bound: bound, Sigma: uint64(math.Ceil(sigma * (1 << 20))), Charge: charge})
		s.Budget += charge
		j.Spent += charge
		j.Attempts = append(j.Attempts, ledger.Attempt{
			Round: i + 1, Attempt: 1, Record: int64(2*i + 2), End: int64(2*i + 3), Charge: charge,
			Status: ledger.StatusReleased, Members: nMin, Mechanism: s.Mechanism(i + 1),
		})
	}
	return j
}

func historyOf(jobs ...*ledger.Job) *ledger.History {
	return &ledger.History{Checkpoint: ledger.Checkpoint{Origin: "cluster.example", Size: 1}, Jobs: jobs}
}

func answers(t *testing.T, all []report.Accountant, err error) map[string]float64 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, a := range all {
		if a.Note == "" || strings.Contains(a.Note, "\n") {
			t.Errorf("%s: note %q", a.Name, a.Note)
		}
		out[a.Name] = a.Epsilon
	}
	return out
}

func near(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance*want }

func repeat(z float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = z
	}
	return out
}

// 20 rounds at noise multiplier 5, delta 1e-6: epsilon 4.306, and 9.617 under replace-one.
func TestFigures(t *testing.T) {
	zero := jobWith(ledger.TrustDistributed, dp.ZeroOut, 1000, repeat(5, 20)...)
	replace := jobWith(ledger.TrustLocal, dp.ReplaceOne, 1000, repeat(5, 20)...)
	r := reportOf(t, historyOf(zero, replace), nil)
	for i, want := range []struct{ epsilon, replaceOne float64 }{{4.306, 9.617}, {4.306, 4.306}} {
		j := r.Jobs[i]
		if !near(j.Spent.Epsilon, want.epsilon, 2e-4) || !near(j.Spent.ReplaceOne, want.replaceOne, 2e-4) || !near(j.Spent.Mu, math.Sqrt(0.8), 1e-6) {
			t.Errorf("%s: %+v, want %+v", j.Adjacency, j.Spent, want)
		}
		if j.Left != (report.Privacy{}) || j.Cap != j.Spent {
			t.Errorf("left %+v of %+v", j.Left, j.Cap)
		}
		a := j.Attempts[19]
		if !near(a.Multiplier, 5, 1e-9) || a.Clip != 1 || a.Spent != j.Spent || a.Leaf != 40 || a.EndLeaf != 41 {
			t.Errorf("last attempt %+v", a)
		}
		all, err := j.Accountants.All()
		got := answers(t, all, err)
		if !near(got["GDP"], want.epsilon, 2e-4) || !near(got["PLD"], got["GDP"], 1e-3) || got["PLD"] < got["GDP"]*(1-1e-9) ||
			got["zCDP"] < got["GDP"] || got["zCDP by hand"] < got["zCDP"] || got["RDP"] < got["GDP"] || got["RDP"] > 1.1*got["GDP"] {
			t.Errorf("accountants %v", got)
		}
		if i == 1 && (j.Trust.SeesBefore == nil || !strings.HasPrefix(j.Trust.SeesBefore[0], "nobody")) {
			t.Errorf("local trust: %q", j.Trust.SeesBefore)
		}
		if noise := []float64{5, 10}[i]; !near(a.Noise, noise, 1e-9) {
			t.Errorf("noise %v, want %v", a.Noise, noise)
		}
	}
	// Under zero-out, what costs rho under replace-one costs a quarter.
	if got := r.Together.Rho; !near(got, 0.4+0.1, 1e-6) || r.Together.Delta != 1e-6 {
		t.Errorf("together %+v", r.Together)
	}
}

// Values of dp-accounting 0.6.0, which recomputed what Export wrote, by the lines in
// FORMAT.md. Its RDP has orders of its own.
func TestExportIsRecomputed(t *testing.T) {
	ordinary, _ := kept(t)
	varied := jobWith(ledger.TrustDistributed, dp.ZeroOut, 4000, 5.25, 5.25, 5.25, 8, 2.5, 40, 12.125, 12.125)
	all := historyOf(append(slices.Clone(ordinary.Jobs), varied)...)
	e, err := report.Export(all)
	if err != nil {
		t.Fatal(err)
	}
	var written bytes.Buffer
	if err := e.WriteJSON(&written); err != nil {
		t.Fatal(err)
	}
	expect(t, "export.json", written.Bytes())
	for i, want := range []struct{ rdp, pld float64 }{
		{1.143169, 1.060702},
		{1.143169, 1.060702},
		{0.788738, 0.730526},
		{2.666570, 2.485993},
	} {
		got := answers(t, e.Jobs[i].Epsilon, nil)
		if !near(got["RDP"], want.rdp, 2e-3) || !near(got["PLD"], want.pld, 1e-4) || !near(got["GDP"], want.pld, 1e-4) {
			t.Errorf("%s: %v, want %+v", e.Jobs[i].Job, got, want)
		}
		for k, m := range e.Jobs[i].Mechanisms {
			if a := &all.Jobs[i].Attempts[k]; m.Record != a.Record || m.Charge != a.Charge || m.Event != "GaussianDpEvent" {
				t.Errorf("%+v is of %+v", m, a)
			}
		}
	}
}

// Noise of few lattice units is no Gaussian: zCDP has an answer, and GDP none.
func TestCoarseNoise(t *testing.T) {
	j := jobWith(ledger.TrustLocal, dp.ZeroOut, 10, 4)
	r := &j.Specification.Releases[0]
	r.Bound, r.Sigma, r.Charge = 1, 3<<19, 222_222_223 // 1.5 lattice units
	j.Specification.Budget, j.Spent, j.Attempts[0].Charge, j.Attempts[0].Mechanism = r.Charge, r.Charge, r.Charge, j.Specification.Mechanism(1)
	job := reportOf(t, historyOf(j), nil).Jobs[0]
	want, err := r.Charge.Epsilon(1e-6)
	if err != nil {
		t.Fatal(err)
	}
	if job.Spent.Mu != 0 || job.Spent.Epsilon != want || !(job.Spent.ReplaceOne > want) {
		t.Errorf("%+v, want epsilon %v and no mu", job.Spent, want)
	}
	all, err := job.Accountants.All()
	got := answers(t, all, err)
	if _, answered := got["GDP"]; answered || got["zCDP"] != want {
		t.Errorf("accountants %v", got)
	}
}

// A sum of shares that are coarse is no discrete Gaussian, however many they are: only
// what holds of its charge is said, and exported. At half a lattice unit and a bound of 20
// the exact epsilon of 1,000 shares is 6.94 (by convolution), and a Gaussian's of the same
// variance 6.46.
func TestCoarseShares(t *testing.T) {
	j := jobWith(ledger.TrustDistributed, dp.ZeroOut, 1000, 4)
	r := &j.Specification.Releases[0]
	r.Bound, r.Sigma, r.Charge, r.Length = 20, 1<<19, 1_000_000_000, 4
	j.Specification.Budget, j.Spent, j.Attempts[0].Charge, j.Attempts[0].Mechanism = r.Charge, r.Charge, r.Charge, j.Specification.Mechanism(1)
	job := reportOf(t, historyOf(j), nil).Jobs[0]
	want, err := r.Charge.Epsilon(1e-6)
	if err != nil {
		t.Fatal(err)
	}
	all, err := job.Accountants.All()
	got := answers(t, all, err)
	if _, answered := got["GDP"]; answered || job.Spent.Mu != 0 || job.Spent.Epsilon != want {
		t.Errorf("%+v, accountants %v", job.Spent, got)
	}
	if _, answered := got["PLD"]; answered || !(got["RDP"] > 0.999*want) {
		t.Errorf("accountants %v", got)
	}
	e, err := report.Export(historyOf(j))
	if err != nil {
		t.Fatal(err)
	}
	if m := e.Jobs[0].Mechanisms[0]; m.Event != "ZCDpEvent" || m.Rho != 1 || m.Multiplier != 0 {
		t.Errorf("exported %+v", m)
	}
}

// Of many different mechanisms the other accountants tell.
func TestManyMechanisms(t *testing.T) {
	var multipliers []float64
	for i := range 100 {
		multipliers = append(multipliers, 20+float64(i))
	}
	all, err := reportOf(t, historyOf(jobWith(ledger.TrustLocal, dp.ZeroOut, 10, multipliers...)), nil).Jobs[0].Accountants.All()
	got := answers(t, all, err)
	if _, answered := got["PLD"]; answered || got["GDP"] == 0 || got["RDP"] == 0 {
		t.Errorf("accountants %v", got)
	}
}

func TestNothingSpent(t *testing.T) {
	j := jobWith(ledger.TrustCentral, dp.ZeroOut, 10, 4)
	j.Attempts, j.Spent, j.Released, j.State = nil, 0, 0, ledger.Digest{}
	j.Specification.Parameters = json.RawMessage("{\"a\\u001b[2J\":\"\u009b2J\"}")
	h := historyOf(j)
	h.Before = 1
	r := reportOf(t, h, nil)
	all, err := r.Jobs[0].Accountants.All()
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, a := range all {
		if a.Epsilon != 0 {
			t.Errorf("%s: %v of nothing", a.Name, a.Epsilon)
		}
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"None yet", "older than the ledger", "Before the ledger"} {
		if !strings.Contains(strings.Join(strings.Fields(text.String()), " "), want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	if strings.ContainsAny(text.String(), "\x1b\u009b") {
		t.Error("a specification moves the reader's cursor")
	}
	if err := reportOf(t, historyOf(), nil).WriteText(&text); err != nil {
		t.Fatal(err)
	}
}

// Jobs that spent more than can be counted together have spent that much at least.
func TestTogetherIsBounded(t *testing.T) {
	j := jobWith(ledger.TrustDistributed, dp.ZeroOut, 4000, 8)
	j.Spent, j.Specification.Budget = math.MaxUint64-1, math.MaxUint64
	together := reportOf(t, historyOf(j, j), nil).Together
	if together.NanoRho != math.MaxUint64 || math.IsInf(together.Epsilon, 0) || !(together.Epsilon > 1e10) || !(together.ReplaceOne > together.Epsilon) {
		t.Errorf("%+v", together)
	}
}

// What accountants answer is the same whoever asks first, and of a copy as well.
func TestAnswersAreShared(t *testing.T) {
	alike := func() *ledger.Job { return jobWith(ledger.TrustDistributed, dp.ZeroOut, 4000, repeat(8, 3)...) }
	r := reportOf(t, historyOf(alike(), alike(), jobWith(ledger.TrustDistributed, dp.ZeroOut, 4000, repeat(8, 4)...)), nil)
	all := make([][]report.Accountant, len(r.Jobs))
	var wait sync.WaitGroup
	for i, j := range r.Jobs {
		wait.Go(func() { all[i], _ = j.Accountants.All() })
	}
	wait.Wait()
	if len(all[0]) != 5 || !slices.Equal(all[0], all[1]) || slices.Equal(all[0], all[2]) {
		t.Errorf("%+v", all)
	}
}

// BenchmarkNew reports on ledgers of 100,000 records, and writes what it says.
func BenchmarkNew(b *testing.B) {
	for _, c := range []struct{ jobs, rounds int }{{20, 2500}, {10_000, 5}} {
		var all []*ledger.Job
		for i := range c.jobs {
			all = append(all, jobWith(ledger.TrustDistributed, dp.ZeroOut, 4000, repeat(200+float64(i), c.rounds)...))
		}
		h := historyOf(all...)
		b.Run(fmt.Sprintf("%d jobs of %d rounds", c.jobs, c.rounds), func(b *testing.B) {
			for b.Loop() {
				reportOf(b, h, nil)
			}
		})
		b.Run(fmt.Sprintf("%d jobs of %d rounds, JSON", c.jobs, c.rounds), func(b *testing.B) {
			for b.Loop() {
				if err := reportOf(b, h, nil).WriteJSON(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
