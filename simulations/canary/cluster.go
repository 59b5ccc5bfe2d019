package canary

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

// Cluster is servers that run test jobs, and the identities that play them.
type Cluster struct {
	Servers []string // addresses, HOST:PORT
	// Clients contribute: as many as a round takes are needed.
	Clients []*identity.Bearer
	// Operator creates test jobs like Config.Spec and opens them. Without one, Jobs names
	// those that the cluster's operator has created and opened: of the canary method, all
	// alike, none of them begun, with rounds of exactly n_min contributions.
	Operator *identity.Bearer
	Jobs     []string
	// LedgerKey is public; without it the first that is shown is trusted.
	LedgerKey string
	// Patience is how long to go on while no server answers, or nothing goes on; 0 is a
	// minute.
	Patience time.Duration
}

// ErrStrangers says that a round of a test job has contributions that are not the
// audit's. Their noise is not in the claim and what they contribute is not known, so
// nothing is measured.
var ErrStrangers = errors.New("canary: others took part in a test job")

// JobError is a job that is no test job.
type JobError struct{ Job, Problem string }

func (e *JobError) Error() string { return e.Job + ": " + e.Problem }

const (
	// deadline of the rounds of test jobs that are created, which close when they are
	// full.
	deadline = time.Minute
	// mostLength of a contribution to a test job: coordinates are compared in pairs.
	mostLength = 2 * mostCanaries
)

// onCluster is Run with Config.Cluster.
func (c *Config) onCluster(ctx context.Context) (*Result, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	there := &audited{Cluster: c.Cluster, witness: witness{trusted: c.Cluster.LedgerKey}, news: make(chan struct{})}
	defer there.close()
	if there.patience = c.Cluster.Patience; there.patience <= 0 {
		there.patience = time.Minute
	}
	d, err := there.plan(ctx, c)
	if err != nil {
		return nil, err
	}
	if have, need := len(there.Clients), d.spec.NMin; have < need {
		return nil, fieldError("clients", "a round takes the certificates of %d clients, and there are %d (undertone ca issue client --count %d --prefix canary-)", need, have, need)
	}
	for i, b := range there.Clients[:d.spec.NMin] {
		caller, err := newCaller(b, there.Servers, i, there.patience)
		if err != nil {
			return nil, err
		}
		there.clients = append(there.clients, caller)
	}
	ctx, stop := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := there.watch(ctx); err != nil {
			stop(err)
		}
	})
	defer watching.Wait()
	defer stop(nil)
	r, err := d.measure(ctx, &venueThere{there, d})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, err
}

// audited is a cluster while it is audited.
type audited struct {
	*Cluster
	patience time.Duration
	clients  []*caller
	operator *caller
	prefix   string   // of the jobs that are created
	names    []string // of those that exist
	raw      [][]byte // their specifications

	mu      sync.Mutex
	witness witness
	offers  map[string]offer // the latest of each job
	index   uint64           // the highest seen
	news    chan struct{}    // closed when offers change, and replaced
}

// offer is an attempt that collects at an index, and the checkpoint that it is in.
type offer struct {
	work       *undertonev1.Work
	index      uint64
	checkpoint ledger.Checkpoint
}

func (a *audited) close() {
	for _, c := range a.clients {
		c.close()
	}
	if a.operator != nil {
		a.operator.close()
	}
}

// plan reads the test jobs that there are, or plans those that will be created.
func (a *audited) plan(ctx context.Context, c *Config) (d *design, err error) {
	if len(a.Clients) == 0 {
		return nil, fieldError("clients", "there is no certificate of a client")
	}
	if len(a.Jobs) > 0 {
		return a.existing(ctx, c)
	}
	if a.Operator == nil {
		return nil, fieldError("operator", "is missing: who creates the test jobs? Or --job names those that there are")
	}
	if a.operator, err = newCaller(a.Operator, a.Servers, 0, a.patience); err != nil {
		return nil, err
	}
	random := make([]byte, 4)
	rand.Read(random)
	a.prefix = "canary-" + hex.EncodeToString(random)
	if d, err = c.design(); err != nil {
		return nil, err
	}
	d.spec.Deadline = deadline.Milliseconds()
	for _, r := range d.spec.Releases { // each may fail once
		if d.spec.Budget, err = d.spec.Budget.Add(r.Charge); err != nil {
			return nil, fieldError("spec", "%v", err)
		}
	}
	return d, nil
}

// existing plans with the jobs that there are.
func (a *audited) existing(ctx context.Context, c *Config) (*design, error) {
	asks, err := newCaller(a.Clients[0], a.Servers, 0, a.patience)
	if err != nil {
		return nil, err
	}
	defer asks.close()
	var first *rounds.Spec
	for i, name := range a.Jobs {
		if slices.Contains(a.Jobs[:i], name) {
			return nil, &JobError{name, "it stands twice"}
		}
		raw, err := asks.spec(ctx, name)
		if refusalOf(err).GetReason() == undertonev1.Reason_REASON_UNKNOWN_JOB {
			return nil, &JobError{name, "there is no such job"}
		}
		if err != nil {
			return nil, err
		}
		spec, err := canaryJob(name, raw)
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = spec
		}
		unnamed := *spec
		unnamed.Job = first.Job
		if string(jobs.Encode(&unnamed)) != string(jobs.Encode(first)) {
			return nil, &JobError{name, "its terms are not those of " + first.Job}
		}
		version, _, err := asks.latest(ctx, name, 0)
		if err != nil {
			return nil, err
		}
		if version > 0 {
			return nil, &JobError{name, fmt.Sprintf("%d of its rounds are released already, with contributions that nobody knows", version)}
		}
		a.raw = append(a.raw, raw)
	}
	a.names, c.Spec = a.Jobs, first
	d, err := c.designOf(first, min(first.NMin, mostCanaries, first.Releases[0].Length-silent))
	if err != nil {
		return nil, err
	}
	d.jobs = len(a.names)
	return d, nil
}

// canaryJob reads the specification of a test job. Fails with a *JobError.
func canaryJob(name string, raw []byte) (*rounds.Spec, error) {
	wrong := func(format string, args ...any) (*rounds.Spec, error) {
		return nil, &JobError{name, fmt.Sprintf(format, args...)}
	}
	spec, err := rounds.ParseSpec(raw)
	if err == nil {
		err = jobs.CheckAny(spec)
	}
	switch {
	case err != nil:
		return wrong("its specification: %v", err)
	case spec.Job != name:
		return wrong("its specification is that of %s", spec.Job)
	case spec.Method != jobs.CanaryMethod:
		return wrong("its method is %s, and only jobs of the method %s release what can be measured", spec.Method, jobs.CanaryMethod)
	case spec.RoundSize != spec.NMin:
		return wrong("its rounds take up to %d contributions, more than the %d whose noise is charged (--round-size)", spec.RoundSize, spec.NMin)
	case spec.Releases[0].Length <= silent || spec.Releases[0].Length > mostLength:
		return wrong("its contributions have %d coordinates, and from %d to %d can be measured; best are n-min and %d more (--dim)",
			spec.Releases[0].Length, silent+1, mostLength, silent)
	}
	return spec, nil
}

// watch polls, as one client after the other, until ctx is done: what one of them is
// shown must extend what the others were.
func (a *audited) watch(ctx context.Context) error {
	const wait = 2 * time.Second
	var known []*undertonev1.Participation
	for turn := 0; ; turn++ {
		size, index := a.witness.last.Size, a.seen(0)
		var r *undertonev1.PollResponse
		err := a.clients[turn%len(a.clients)].participate(ctx, wait+try, func(ctx context.Context, p undertonev1grpc.ParticipantServiceClient) (err error) {
			if r, err = p.Poll(ctx, &undertonev1.PollRequest{MinIndex: index, WaitMs: uint64(wait.Milliseconds()), Known: known, LedgerSize: uint64(size)}); err != nil {
				return err
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			if err = a.witness.follow(r.GetLedger()); errors.Is(err, ledger.ErrTruncated) {
				err = fmt.Errorf("%w: %w", errBehind, err)
			}
			return err
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		known = known[:0]
		a.mu.Lock()
		a.index = max(a.index, r.GetIndex())
		a.offers = make(map[string]offer, len(r.GetWork()))
		for _, w := range r.GetWork() {
			known = append(known, &undertonev1.Participation{Job: w.GetJob(), Round: w.GetRound(), Attempt: w.GetAttempt()})
			a.offers[w.GetJob()] = offer{w, r.GetIndex(), a.witness.last}
		}
		close(a.news)
		a.news = make(chan struct{})
		a.mu.Unlock()
	}
}

// seen returns the highest index seen, that of the caller included.
func (a *audited) seen(index uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index = max(a.index, index)
	return a.index
}

// offered returns what a job offers, and what is closed when that may have changed.
func (a *audited) offered(job string) (offer, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.offers[job], a.news
}

// venueThere plays test jobs on a cluster.
type venueThere struct {
	*audited
	d *design
}

// atOnce keeps about a thousand contributions under way.
func (v *venueThere) atOnce() int { return min(max(mostInflight/v.d.spec.NMin, 2), 16) }

func (v *venueThere) how() string {
	first, last := v.prefix+"-1", fmt.Sprintf("%s-%d", v.prefix, v.d.jobs)
	if n := len(v.names); n > 0 {
		first, last = v.names[0], v.names[n-1]
	}
	which := "jobs " + first + " to " + last
	if first == last {
		which = "job " + first
	}
	whose := "its servers' noise"
	if v.d.spec.Trust != rounds.TrustCentral {
		whose = "noise of " + v.d.program()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprintf("%s of the cluster %s, %s", which, v.witness.last.Origin, whose)
}

func (v *venueThere) begin(ctx context.Context, number int) (testJob, error) {
	j := &jobThere{venueThere: v, number: number, state: sha256.Sum256(v.d.start)}
	if len(v.names) > 0 {
		j.name, j.raw = v.names[number], v.raw[number]
		return j, nil
	}
	spec := *v.d.spec
	spec.Job = fmt.Sprintf("%s-%d", v.prefix, number+1)
	j.name, j.raw = spec.Job, jobs.Encode(&spec)
	created := false
	err := v.operate(ctx, func(ctx context.Context, o undertonev1grpc.OperatorServiceClient) error {
		_, err := o.CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: j.raw})
		if refusalOf(err).GetReason() == undertonev1.Reason_REASON_JOB_EXISTS && created {
			err = nil // by the call before, whose answer was lost
		}
		created = true
		return err
	})
	if err == nil {
		err = v.operate(ctx, func(ctx context.Context, o undertonev1grpc.OperatorServiceClient) error {
			_, err := o.OpenJob(ctx, &undertonev1.OpenJobRequest{Job: j.name})
			return err
		})
	}
	if err != nil && created {
		j.end()
	}
	return j, err
}

// operate is caller.call with the service of operators.
func (v *venueThere) operate(ctx context.Context, f func(context.Context, undertonev1grpc.OperatorServiceClient) error) error {
	return v.operator.call(ctx, try, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, undertonev1grpc.NewOperatorServiceClient(conn))
	})
}

// jobThere is a test job on a cluster.
type jobThere struct {
	*venueThere
	number int
	name   string
	raw    []byte // its specification

	work  *undertonev1.Work // what collects, or did last
	index uint64            // at which it does
	state ledger.Digest     // released last, of which every reservation has to be
	asked int               // how often whether there is another
	over  bool
}

// again reports whether an offer is a later attempt at the round that was played last.
func (j *jobThere) again(w *undertonev1.Work) bool {
	return w != nil && j.work != nil && w.GetRound() == j.work.GetRound() && w.GetAttempt() > j.work.GetAttempt()
}

// wait is how long to wait for the servers. After an attempt that failed they wait for
// a deadline, or two.
func (j *jobThere) wait() time.Duration {
	if j.work == nil {
		return j.patience
	}
	return j.patience + 2*time.Duration(j.d.spec.Deadline)*time.Millisecond
}

func (j *jobThere) collect(ctx context.Context, round int) (attempt int, err error) {
	late := time.NewTimer(j.wait())
	defer late.Stop()
	for {
		o, changed := j.offered(j.name)
		switch {
		case o.work == nil, o.work.GetRound() == j.work.GetRound() && !j.again(o.work): // as before
		case o.work.GetRound() != uint32(round):
			return 0, &JobError{j.name, fmt.Sprintf("round %d collects, and not round %d", o.work.GetRound(), round)}
		case string(o.work.GetStateDigest()) != string(j.state[:]):
			return 0, fmt.Errorf("%w: round %d of %s begins with another state than the last one released", ErrLedger, round, j.name)
		default:
			j.work, j.index = o.work, o.index
			return int(o.work.GetAttempt()), reserves(o.checkpoint, o.work, j.d.spec, j.raw)
		}
		select {
		case <-changed:
		case <-late.C:
			return 0, fmt.Errorf("%w: %s does not collect round %d (undertone job status %s)", ErrUnavailable, j.name, round, j.name)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (j *jobThere) submit(ctx context.Context, client int, payload []byte) error {
	index, err := j.clients[client].submit(ctx, &undertonev1.SubmitRequest{Payload: payload, Header: &undertonev1.SubmitHeader{
		Job: j.name, Round: j.work.GetRound(), Attempt: j.work.GetAttempt(), StateDigest: j.work.GetStateDigest(),
		Checksum: crc32.Checksum(payload, castagnoli), MinIndex: j.index,
	}})
	j.seen(index)
	return err
}

// release asks until the round is released: soon, as its last contribution closed it.
func (j *jobThere) release(ctx context.Context) ([]byte, error) {
	late := time.NewTimer(j.wait())
	defer late.Stop()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		if state, err := j.released(ctx); state != nil || err != nil {
			return state, err
		}
		if o, _ := j.offered(j.name); j.again(o.work) {
			return nil, errFailed
		}
		select {
		case <-time.After(pause):
		case <-late.C:
			return nil, fmt.Errorf("%w: round %d of %s is not released (undertone job status %s)", ErrUnavailable, j.work.GetRound(), j.name, j.name)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// released fetches the state that the round released, nil if it has not.
func (j *jobThere) released(ctx context.Context) ([]byte, error) {
	j.asked++
	asks := j.clients[(j.number+j.asked)%len(j.clients)]
	version, state, err := asks.latest(ctx, j.name, j.seen(0))
	round := int(j.work.GetRound())
	switch {
	case err != nil || version < round:
		return nil, err
	case version > round:
		return nil, &JobError{j.name, fmt.Sprintf("%d rounds are released, and %d were played", version, round)}
	}
	j.state = sha256.Sum256(state)
	j.over = round == len(j.d.spec.Releases)
	return state, nil
}

// end closes a job that was created and is not over, so that nothing of it goes on.
func (j *jobThere) end() {
	if j.over || len(j.names) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), try)
	defer cancel()
	_ = j.operate(ctx, func(ctx context.Context, o undertonev1grpc.OperatorServiceClient) error {
		_, err := o.CloseJob(ctx, &undertonev1.CloseJobRequest{Job: j.name})
		return err
	}) // who hears of it has another error already
}
