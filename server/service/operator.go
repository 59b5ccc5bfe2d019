package service

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/refusal"
)

// operator is what operators use.
type operator struct {
	rpc.UnimplementedOperatorServiceServer
	*Service
}

// CreateJob implements OperatorService. A specification whose claims do not add
// up is refused.
func (o *operator) CreateJob(ctx context.Context, req *undertonev1.CreateJobRequest) (*undertonev1.CreateJobResponse, error) {
	spec, err := rounds.ParseSpec(req.Spec)
	if err != nil {
		return nil, err
	}
	if err := jobs.CheckAny(spec); err != nil {
		return nil, err
	}
	start, err := jobs.Start(spec)
	if err != nil {
		return nil, err
	}
	state, err := o.node.StageBlob(ctx, spec.Job, 0, 0, start)
	if err != nil {
		return nil, err
	}
	job, err := o.do(ctx, spec.Job, rounds.CreateJob{Spec: req.Spec, State: state})
	return &undertonev1.CreateJobResponse{Job: job}, err
}

// OpenJob implements OperatorService.
func (o *operator) OpenJob(ctx context.Context, req *undertonev1.OpenJobRequest) (*undertonev1.OpenJobResponse, error) {
	until := 0
	if req.Rounds > 0 || req.Until > 0 {
		opened, total, err := o.opened(req.Job)
		if err != nil {
			return nil, err
		}
		until = opened + int(min(req.Rounds, uint32(total)))
		if req.Until > 0 {
			until = int(min(req.Until, uint32(total)))
		}
		if until >= total {
			until = 0
		}
	}
	job, err := o.do(ctx, req.Job, rounds.Run{Job: req.Job, Until: until})
	return &undertonev1.OpenJobResponse{Job: job}, err
}

// PauseJob implements OperatorService.
func (o *operator) PauseJob(ctx context.Context, req *undertonev1.PauseJobRequest) (*undertonev1.PauseJobResponse, error) {
	job, err := o.do(ctx, req.Job, rounds.Run{Job: req.Job, Until: rounds.NoRound})
	return &undertonev1.PauseJobResponse{Job: job}, err
}

// CloseJob implements OperatorService.
func (o *operator) CloseJob(ctx context.Context, req *undertonev1.CloseJobRequest) (*undertonev1.CloseJobResponse, error) {
	job, err := o.do(ctx, req.Job, rounds.CloseJob{Job: req.Job})
	return &undertonev1.CloseJobResponse{Job: job}, err
}

// opened is the last round that is released or under way, and the number of all.
func (o *operator) opened(name string) (opened, total int, err error) {
	err = o.view(name, func(_ *rounds.Machine, job *rounds.JobView, _ uint64) {
		opened, total = job.Released, len(job.Spec.Releases)
		if n := len(job.Attempts); n > 0 {
			if last := &job.Attempts[n-1]; last.Phase == rounds.Collecting || last.Phase == rounds.Closed {
				opened = last.Round
			}
		}
	})
	return opened, total, err
}

// OpenRound implements OperatorService. It refuses what the driver would not do either: an
// attempt that this node could not show to be charged.
func (o *operator) OpenRound(ctx context.Context, req *undertonev1.OpenRoundRequest) (*undertonev1.OpenRoundResponse, error) {
	if _, err := o.notary.Head(); err != nil && !errors.Is(err, notary.ErrNoLedger) {
		return nil, err
	}
	job, err := o.do(ctx, req.Job, rounds.OpenRound{Job: req.Job, Round: int(req.Round), Attempt: int(req.Attempt)})
	return &undertonev1.OpenRoundResponse{Job: job}, err
}

// CloseRound implements OperatorService.
func (o *operator) CloseRound(ctx context.Context, req *undertonev1.CloseRoundRequest) (*undertonev1.CloseRoundResponse, error) {
	job, err := o.do(ctx, req.Job, rounds.CloseRound{Job: req.Job, Round: int(req.Round), Attempt: int(req.Attempt)})
	return &undertonev1.CloseRoundResponse{Job: job}, err
}

// do commits an operator's command and returns the job after it.
func (o *operator) do(ctx context.Context, name string, c rounds.Command) (*undertonev1.Job, error) {
	who, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	index, err := o.node.Propose(ctx, c)
	o.config.Logger.Info("operator's command", "operator", who.Name, "command", commandName(c), "job", name, "err", err)
	if err != nil {
		return nil, err
	}
	job, _, err := o.job(name, index)
	return job, err
}

func commandName(c rounds.Command) string {
	switch c := c.(type) {
	case rounds.CreateJob:
		return "create"
	case rounds.Run:
		if c.Until == rounds.NoRound {
			return "pause"
		}
		return "run until " + strconv.Itoa(c.Until)
	case rounds.CloseJob:
		return "close"
	case rounds.OpenRound:
		return "open round " + strconv.Itoa(c.Round)
	case rounds.CloseRound:
		return "close round " + strconv.Itoa(c.Round)
	}
	return "other"
}

// GetJob implements OperatorService. Who names no index gets the job as of now:
// a node that was just started may not have heard of it yet.
func (o *operator) GetJob(ctx context.Context, req *undertonev1.GetJobRequest) (*undertonev1.GetJobResponse, error) {
	if req.MinIndex == 0 {
		if _, err := o.node.Barrier(ctx); err != nil {
			return nil, err
		}
	} else if err := ingest.CatchUp(ctx, o.node, req.MinIndex); err != nil {
		return nil, err
	}
	job, index, err := o.job(req.Job, req.MinIndex)
	return &undertonev1.GetJobResponse{Job: job, Index: index}, err
}

// ListJobs implements OperatorService.
func (o *operator) ListJobs(ctx context.Context, _ *undertonev1.ListJobsRequest) (*undertonev1.ListJobsResponse, error) {
	if _, err := o.node.Barrier(ctx); err != nil {
		return nil, err
	}
	resp := new(undertonev1.ListJobsResponse)
	o.node.View(func(m *rounds.Machine, index uint64) {
		resp.Index = index
		for _, name := range m.Jobs() {
			j, _ := m.Job(name)
			resp.Jobs = append(resp.Jobs, jobMessage(&j))
		}
	})
	for _, j := range resp.Jobs {
		j.Attempts = nil
	}
	return resp, nil
}

// job returns a job as it stands at index or later.
func (o *operator) job(name string, index uint64) (*undertonev1.Job, uint64, error) {
	edition, _ := o.board.At(index)
	var (
		job  *undertonev1.Job
		asOf uint64
	)
	err := o.view(name, func(_ *rounds.Machine, v *rounds.JobView, index uint64) {
		job, asOf = jobMessage(v), index
	})
	if err != nil {
		return nil, 0, err
	}
	// The edition may be the older of the two.
	j, n := edition.Job(name), len(job.Attempts)
	if n > 0 && job.Attempts[n-1].Phase == undertonev1.Phase_PHASE_COLLECTING && j != nil && j.Collecting() &&
		uint32(j.Last.Round) == job.Attempts[n-1].Round && uint32(j.Last.Attempt) == job.Attempts[n-1].Attempt {
		job.RemainingMs = uint64(j.Remaining(time.Now()).Milliseconds())
	}
	return job, asOf, nil
}

func jobMessage(v *rounds.JobView) *undertonev1.Job {
	job := &undertonev1.Job{
		Spec:         v.Raw.Bytes,
		State:        undertonev1.JobState(v.State),
		Until:        uint32(v.Until),
		Released:     uint32(v.Released),
		StateDigest:  v.Latest.Digest[:],
		StateSize:    uint64(v.Latest.Size),
		SpentNanoRho: uint64(v.Spent),
		Attempts:     make([]*undertonev1.Attempt, len(v.Attempts)),
		NextAttempt:  uint32(v.Next),
	}
	for i := range v.Attempts {
		a := v.Attempts[i]
		job.Attempts[i] = &undertonev1.Attempt{
			Round:         uint32(a.Round),
			Attempt:       uint32(a.Attempt),
			Phase:         undertonev1.Phase(a.Phase),
			Members:       uint32(a.Members),
			ChargeNanoRho: uint64(a.Charge),
			Why:           a.Why,
		}
		if a.Sum != (rounds.Digest{}) {
			job.Attempts[i].SumDigest = a.Sum[:]
		}
		if a.State != (rounds.Digest{}) {
			job.Attempts[i].StateDigest = a.State[:]
		}
	}
	return job
}

// GetCluster implements OperatorService.
func (o *operator) GetCluster(ctx context.Context, _ *undertonev1.GetClusterRequest) (*undertonev1.GetClusterResponse, error) {
	members, err := o.node.Members(ctx)
	if err != nil {
		return nil, err
	}
	resp := &undertonev1.GetClusterResponse{Node: o.config.Name}
	o.node.View(func(m *rounds.Machine, _ uint64) { resp.Clients = uint64(m.Clients()) })
	for _, m := range members {
		resp.Nodes = append(resp.Nodes, &undertonev1.Node{
			Name:       m.Name,
			Address:    m.Address,
			Voter:      m.Voter,
			Leader:     m.Leader,
			Reachable:  m.Reachable,
			Applied:    m.Applied,
			Term:       m.Term,
			Hash:       m.Hash[:],
			Diverged:   m.Diverged,
			Version:    m.Version,
			ApiAddress: m.APIAddress,
			NotReady:   m.NotReady,
		})
	}
	return resp, nil
}

// RemoveNode implements OperatorService.
func (o *operator) RemoveNode(ctx context.Context, req *undertonev1.RemoveNodeRequest) (*undertonev1.RemoveNodeResponse, error) {
	if err := o.member(ctx, req.Node); err != nil {
		return nil, err
	}
	return new(undertonev1.RemoveNodeResponse), o.node.RemoveNode(ctx, req.Node)
}

// PromoteNode implements OperatorService.
func (o *operator) PromoteNode(ctx context.Context, req *undertonev1.PromoteNodeRequest) (*undertonev1.PromoteNodeResponse, error) {
	if err := o.member(ctx, req.Node); err != nil {
		return nil, err
	}
	return new(undertonev1.PromoteNodeResponse), o.node.PromoteNode(ctx, req.Node)
}

// TransferLeadership implements OperatorService.
func (o *operator) TransferLeadership(ctx context.Context, req *undertonev1.TransferLeadershipRequest) (*undertonev1.TransferLeadershipResponse, error) {
	if req.Node != "" {
		if err := o.member(ctx, req.Node); err != nil {
			return nil, err
		}
	}
	return new(undertonev1.TransferLeadershipResponse), o.node.TransferLeadership(ctx, req.Node)
}

// member refuses the name of a node that the cluster does not have.
func (o *operator) member(ctx context.Context, name string) error {
	members, err := o.node.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Name == name {
			return nil
		}
	}
	return refusal.New(undertonev1.Reason_REASON_UNKNOWN_NODE, "no node %.64q", name)
}

// Backup implements OperatorService.
func (o *operator) Backup(_ *undertonev1.BackupRequest, stream grpc.ServerStreamingServer[undertonev1.BackupResponse]) error {
	return o.node.Backup(stream.Context(), pieces(func(b []byte) error {
		return stream.Send(&undertonev1.BackupResponse{Chunk: b})
	}))
}

// pieces sends what is written to it.
type pieces func(piece []byte) error

func (send pieces) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		n := min(len(b)-written, pieceSize)
		if err := send(b[written : written+n]); err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}
