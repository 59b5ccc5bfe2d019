package benchmark

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/simulations/cluster"
)

// terms of a job that measures rounds, not learning: contributions are noise.
func terms(name string, clients int) jobs.Terms {
	return jobs.Terms{Job: name, Epsilon: 1, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
		NMin: clients, RoundSize: clients, Deadline: time.Hour}
}

// small are the dimensions at which a contribution to an update has the d r = 150
// coordinates of its gradient and as many beside it.
var small = jobs.Parameters{Config: lowrank.Config{Dim: 50, Rank: 3, Rounds: 9, Features: lowrank.Standard, Update: lowrank.Gradient}}

// job is a job as its load sees it.
type job struct {
	spec *rounds.Spec
}

// create makes a job and opens the given number of rounds, 0 for all.
func create(ctx context.Context, c *cluster.Cluster, p jobs.Parameters, t jobs.Terms, open int) (*job, error) {
	spec, err := jobs.New(p, t)
	if err != nil {
		return nil, err
	}
	return &job{spec}, c.CreateJob(ctx, spec, open)
}

// await waits until a round collects, see cluster.AwaitRound, and returns what
// contributions to it say of themselves but for their checksum.
func (j *job) await(ctx context.Context, c *cluster.Cluster, round int) (*undertonev1.SubmitHeader, error) {
	at, index, err := c.AwaitRound(ctx, j.spec.Job, round)
	return &undertonev1.SubmitHeader{Job: j.spec.Job, Round: uint32(round), Attempt: 1,
		StateDigest: at.GetStateDigest(), MinIndex: index}, err
}

// payload is noise, packed as a contribution to a round.
func (j *job) payload(round int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(round)))
	x := make([]int64, j.spec.Releases[round-1].Length)
	for i := range x {
		x[i] = r.Int64N(1<<20) - 1<<19
	}
	return aggregation.Pack(nil, x, int(j.spec.Lattice.ModulusBits/8))
}

// participant is a client with a certificate and a connection of its own.
type participant struct {
	undertonev1grpc.ParticipantServiceClient
	conn *grpc.ClientConn
}

// participants connects so many clients, evenly to all nodes.
func participants(c *cluster.Cluster, n int) ([]*participant, error) {
	out := make([]*participant, n)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range out {
		g.Go(func() error {
			b, err := c.Bearer(identity.Client, fmt.Sprintf("client-%d", i))
			if err != nil {
				return err
			}
			conn, err := grpc.NewClient(c.Servers()[i%len(c.Servers())], grpc.WithTransportCredentials(grpctls.Client(b)))
			if err != nil {
				return err
			}
			out[i] = &participant{undertonev1grpc.NewParticipantServiceClient(conn), conn}
			return nil
		})
	}
	return out, g.Wait()
}

func disconnect(p []*participant) {
	for _, one := range p {
		if one != nil {
			one.conn.Close()
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// request is a contribution with its header.
func request(h *undertonev1.SubmitHeader, payload []byte) *undertonev1.SubmitRequest {
	h = proto.CloneOf(h)
	h.Checksum = crc32.Checksum(payload, castagnoli)
	return &undertonev1.SubmitRequest{Header: h, Payload: payload}
}

// piece is how much of a large contribution goes into one message.
const piece = 256 << 10

// submitLarge sends a contribution in pieces.
func (p *participant) submitLarge(ctx context.Context, r *undertonev1.SubmitRequest) error {
	stream, err := p.SubmitLarge(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Header{Header: r.Header}})
	for rest := r.Payload; len(rest) > 0 && err == nil; {
		n := min(len(rest), piece)
		err = stream.Send(&undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Piece{Piece: rest[:n]}})
		rest = rest[n:]
	}
	// The stream's own error is what CloseAndRecv returns.
	_, err = stream.CloseAndRecv()
	return err
}

// quickReconnect lets a client find a node again as soon as it is back.
var quickReconnect = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: 100 * time.Millisecond}, MinConnectTimeout: time.Second})

// collect is a log command of version 1.
func collect(job string, members, sum []byte) ([]byte, error) {
	digest := sha256.Sum256(sum)
	return proto.Marshal(&undertonev1.Command{Version: 1, Command: &undertonev1.Command_Collect{Collect: &undertonev1.Collect{
		Key: &undertonev1.AttemptKey{Job: job, Round: 1, Attempt: 1}, Members: members,
		Sum: &undertonev1.Blob{Digest: digest[:], Size: uint64(len(sum)), Bytes: sum}}}})
}

// clientID is a participant as the log names it.
func clientID(name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return sum[:16]
}
