// Package faults runs a cluster of real server processes, lets clients that
// behave and clients that do not take part in its rounds, and meanwhile kills,
// pauses, partitions, restarts and replaces servers, at random but from a seed.
// A history of every answer decides whether the service kept its promises:
//
//  1. one history of released states, never backwards;
//  2. every attempt charged, the budget never exceeded;
//  3. every acknowledged contribution in the sum exactly once, or its round
//     failed (porcupine, over submit, acknowledge and close);
//  4. the same state on every node;
//  6. no release of fewer than n_min;
//  7. one ledger, at every node and for everybody who saw it grow, which verifies,
//     has each attempt before it collects, and tells what was shown of it after.
//
// (The fifth, that nothing private is replicated or logged, is a property of the
// formats.) The seed fixes which faults come in which order, and how each client
// behaves; how they meet is the machine's.
package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/simulations/cluster"
)

// Config of a run.
type Config struct {
	Seed    uint64
	Rounds  int           // to be released in all, at the least
	Limit   time.Duration // give up after that; 0: never
	Clients int           // at most 64
	Only    []string      // faults by name; nil: all
	Dir     string        // of the cluster
	Command []string      // see cluster.Config
	// Progress is told of every fault, and of rounds released.
	Progress func(rounds int, what string)
}

// Report is what a run came to.
type Report struct {
	Seed         uint64         `json:"seed"`
	Rounds       int            `json:"rounds"`       // released
	Failed       int            `json:"failed"`       // attempts, of too few contributions
	Acknowledged int            `json:"acknowledged"` // contributions
	Unknown      int            `json:"unknown"`      // contributions without an answer
	Records      int            `json:"records"`      // of the ledger
	Checkpoints  int            `json:"checkpoints"`  // of it, that clients and an auditor followed
	Faults       map[string]int `json:"faults"`       // by name
	Seconds      float64        `json:"seconds"`
	Violations   []string       `json:"violations"` // of the promises: there should be none
}

// Faults are the names of the faults there are.
func Faults() []string {
	var out []string
	for _, f := range faults {
		out = append(out, f.name)
	}
	return out
}

const nodes = 3

// jobsAtOnce are run beside one another.
const jobsAtOnce = 2

// roundsOfAJob is how many it releases before another takes its place.
const roundsOfAJob = 60

// run is one run.
type run struct {
	Config
	cluster *cluster.Cluster
	network *network
	history *history
	random  *rand.Rand

	ledgerKey string     // public
	witnesses []*witness // of the ledger
	mu        sync.Mutex
	specs     map[string]*rounds.Spec
	report    Report
}

// Run performs a run. An error is one of the run's own; what the service did
// wrong is in the report.
func Run(ctx context.Context, c Config) (*Report, error) {
	if c.Clients < 4 || c.Clients > 64 {
		return nil, fmt.Errorf("%d clients are not from 4 to 64", c.Clients)
	}
	for _, name := range c.Only {
		if !slices.Contains(Faults(), name) {
			return nil, fmt.Errorf("no fault %q", name)
		}
	}
	begin := time.Now()
	r := &run{Config: c, network: newNetwork(), history: newHistory(), random: rand.New(rand.NewPCG(c.Seed, 0)),
		specs: map[string]*rounds.Spec{}, report: Report{Seed: c.Seed, Faults: map[string]int{}}}
	defer r.network.close()
	var err error
	if r.cluster, err = cluster.Start(ctx, cluster.Config{Nodes: nodes, Dir: c.Dir, Command: c.Command, Via: r.network.via}); err != nil {
		return nil, err
	}
	defer r.cluster.Stop()
	if err := r.readLedgerKey(); err != nil {
		return nil, err
	}
	r.network.pid = func(node int) int { return r.cluster.Nodes()[node].Pid() }

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.Limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.Limit)
		defer cancel()
	}
	var group sync.WaitGroup
	for i := range c.Clients {
		bearer, err := r.cluster.Bearer(identity.Client, fmt.Sprintf("client-%d", i))
		if err != nil {
			return nil, err
		}
		one, hangUp, err := newClient(i, bearer, r.cluster.Servers(), c.Seed)
		if err != nil {
			return nil, err
		}
		one.log, one.specs = r.history, r.spec
		if one.ledger, err = r.newWitness(one.name); err != nil {
			return nil, err
		}
		group.Go(func() {
			defer hangUp()
			one.run(ctx)
		})
	}
	auditor, err := r.newWitness("auditor")
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	group.Go(func() { failed <- r.audit(ctx, auditor) })
	err = r.play(ctx, cancel)
	cancel()
	group.Wait()
	if err = errors.Join(err, <-failed); err == nil {
		err = r.stockOfLedgers()
	}
	r.report.Seconds = time.Since(begin).Seconds()
	r.report.Violations = r.history.violations
	return &r.report, err
}

func (r *run) spec(job string) *rounds.Spec {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.specs[job]
}

// play keeps jobs going and faults coming until enough rounds are released, then
// heals everything and takes stock.
func (r *run) play(ctx context.Context, stop context.CancelFunc) error {
	var watchers sync.WaitGroup
	failed := make(chan error, jobsAtOnce)
	for lane := range jobsAtOnce {
		watchers.Go(func() {
			if err := r.lane(ctx, lane); err != nil && ctx.Err() == nil {
				failed <- err
				stop()
			}
		})
	}
	random := r.random
	var possible []fault
	for _, f := range faults {
		if r.Only == nil || slices.Contains(r.Only, f.name) {
			possible = append(possible, f)
		}
	}
	// Like cards: all come before one comes again, and all come once at least.
	for dealt := 0; ctx.Err() == nil && (dealt < len(possible) || r.released() < r.Rounds); dealt++ {
		if dealt%len(possible) == 0 {
			random.Shuffle(len(possible), func(i, j int) { possible[i], possible[j] = possible[j], possible[i] })
		}
		pause(ctx, time.Duration(random.Int64N(int64(1500*time.Millisecond))))
		f := possible[dealt%len(possible)]
		r.note(f.name)
		f.do(ctx, r, random)
		r.heal()
	}
	timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded)
	stop()
	watchers.Wait()
	r.heal()
	select {
	case err := <-failed:
		return err
	default:
	}
	err := r.takeStock()
	if err == nil && timedOut {
		err = fmt.Errorf("%d of %d rounds within %v", r.released(), r.Rounds, r.Limit)
	}
	return err
}

func (r *run) released() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report.Rounds
}

func (r *run) note(fault string) {
	r.mu.Lock()
	r.report.Faults[fault]++
	n := r.report.Rounds
	r.mu.Unlock()
	if r.Progress != nil {
		r.Progress(n, fault)
	}
}

// heal ends every fault: all nodes run, and hear each other.
func (r *run) heal() {
	r.network.block(false)
	for _, n := range r.cluster.Nodes() {
		n.Signal(syscall.SIGCONT)
		select {
		case <-n.Exited():
			if err := n.Start(); err != nil {
				r.history.violation("%s does not start: %v", n.Name, err)
			}
		default:
		}
	}
}

// lane runs one job after the other, and settles each attempt once it is over.
func (r *run) lane(ctx context.Context, lane int) error {
	for generation := 0; ctx.Err() == nil; generation++ {
		name := fmt.Sprintf("job-%d-%d", lane, generation)
		spec, err := jobs.New(
			jobs.Parameters{Config: lowrank.Config{Dim: 6, Rank: 1, Rounds: roundsOfAJob - 1, Features: lowrank.Standard, Update: lowrank.Gradient}},
			jobs.Terms{Job: name, Epsilon: 8, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
				NMin: r.Clients / 2, RoundSize: r.Clients * 3 / 4, Deadline: time.Second, Spare: roundsOfAJob / 3})
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.specs[name] = spec
		r.mu.Unlock()
		r.history.mu.Lock()
		r.history.jobs[name] = &jobHistory{spec: spec, states: map[int][]byte{}}
		r.history.mu.Unlock()
		if err := r.create(ctx, spec); err != nil {
			return err
		}
		if err := r.watch(ctx, spec); err != nil {
			return err
		}
	}
	return nil
}

// create creates and opens a job, as often as it takes.
func (r *run) create(ctx context.Context, spec *rounds.Spec) error {
	for {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := r.cluster.CreateJob(call, spec, 0)
		cancel()
		if err == nil {
			return nil
		}
		if refusal := refusalOf(err); refusal != nil && refusal.Reason == undertonev1.Reason_REASON_MALFORMED {
			return err
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// watch looks at a job until it is at its end.
func (r *run) watch(ctx context.Context, spec *rounds.Spec) error {
	settled := 0
	var index uint64
	for ctx.Err() == nil {
		pause(ctx, 20*time.Millisecond)
		job, at, err := r.look(ctx, spec.Job, index)
		if err != nil {
			continue
		}
		index = at
		r.history.sawJob(job)
		settled = r.settle(spec, job, settled)
		if over(job) {
			return nil
		}
	}
	return nil
}

func over(j *undertonev1.Job) bool {
	return j.State == undertonev1.JobState_JOB_STATE_FINISHED || j.State == undertonev1.JobState_JOB_STATE_EXHAUSTED
}

func (r *run) look(ctx context.Context, job string, index uint64) (out *undertonev1.Job, at uint64, err error) {
	call, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err = r.cluster.Operate(call, func(o undertonev1grpc.OperatorServiceClient) error {
		response, err := o.GetJob(call, &undertonev1.GetJobRequest{Job: job, MinIndex: index})
		out, at = response.GetJob(), response.GetIndex()
		return err
	})
	return out, at, err
}

// settle checks the attempts that are over, a while after: clients that wait for
// an answer get it first.
func (r *run) settle(spec *rounds.Spec, job *undertonev1.Job, settled int) int {
	const behind = 2
	for settled < len(job.Attempts)-behind || over(job) && settled < len(job.Attempts) {
		a := job.Attempts[settled]
		t := r.history.settle(spec, a)
		r.mu.Lock()
		r.report.Acknowledged += t.acknowledged
		r.report.Unknown += t.unknown
		if t.released {
			r.report.Rounds++
		} else {
			r.report.Failed++
		}
		r.mu.Unlock()
		settled++
	}
	return settled
}

// takeStock waits until all nodes have applied the same, and compares their
// running hashes (promise 4).
func (r *run) takeStock() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range r.cluster.Nodes() {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		var found []*undertonev1.Node
		err := r.cluster.Operate(ctx, func(o undertonev1grpc.OperatorServiceClient) error {
			response, err := o.GetCluster(ctx, &undertonev1.GetClusterRequest{})
			found = response.GetNodes()
			return err
		})
		same := err == nil && len(found) == nodes
		for _, n := range found {
			if n.Diverged {
				r.history.violation("%s: its state differs from the others'", n.Name)
				return nil
			}
			same = same && n.Reachable && n.Applied == found[0].Applied
		}
		if same {
			for _, n := range found {
				if !bytes.Equal(n.Hash, found[0].Hash) {
					r.history.violation("at index %d the state of %s is %x, that of %s %x", n.Applied, n.Name, n.Hash[:4], found[0].Name, found[0].Hash[:4])
				}
			}
			return nil
		}
		pause(ctx, 50*time.Millisecond)
	}
	return errors.New("the nodes did not come to the same index within a minute")
}
