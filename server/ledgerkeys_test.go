package server_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/replication"
)

// A leader that lacks the key which the ledger was handed on to does not lead for long,
// says which file is to blame, and spends nothing meanwhile.
func TestLeaderWithoutKeyHandsOn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	c := startCluster(t, 3, func(s *server.Config) { s.LedgerKeys = []string{solo.KeyFile(t)} })
	secret, public, err := ledger.NewKey(solo.Origin)
	must(t, err)
	lacks := c.leader()
	for i := range c.configs {
		if i != lacks {
			must(t, os.WriteFile(c.configs[i].LedgerKeys[0], []byte(solo.SecretKey+"\n"+secret+"\n"), 0o600))
		}
	}
	has := (lacks + 1) % 3
	_, err = rpc.NewLedgerServiceClient(c.dial(has, identity.Operator, "ada")).RotateKey(t.Context(), &undertonev1.RotateKeyRequest{Key: public})
	must(t, err)
	eventually(t, "a node leads that has the key", func() bool { return c.leading() >= 0 && c.leading() != lacks })

	spec, raw := solo.Spec(t, solo.Parameters(), solo.Terms("movies"))
	_, err = c.operator(has).CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err)
	_, err = c.operator(has).OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: spec.Job})
	must(t, err)
	job := c.shows(spec.Job, func(j *undertonev1.Job) bool { return len(j.Attempts) > 0 })
	if len(job.Attempts) != 1 || job.Attempts[0].Phase != undertonev1.Phase_PHASE_COLLECTING {
		t.Errorf("attempts: %v", job.Attempts)
	}
	eventually(t, "the node says what it lacks, and where", func() bool {
		status, body := get(t, c.configs[lacks].HTTP, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, c.configs[lacks].LedgerKeys[0]+": it has not the key "+solo.Origin)
	})
	must(t, os.WriteFile(c.configs[lacks].LedgerKeys[0], []byte(secret+"\n"), 0o600))
	c.waitReady(lacks)
	log, err := os.ReadFile(filepath.Join(c.dir, c.name(lacks)+".json.log"))
	must(t, err)
	if said := strings.Count(string(log), "cannot sign it: "); said != 1 {
		t.Errorf("readiness is told of %d times", said)
	}
}

// upgrading is a node some of whose cluster's members do not read a ledger yet.
type upgrading struct {
	*replication.Node
	older *atomic.Bool
}

func (u upgrading) Older() []string {
	if u.older.Load() {
		return []string{"node-1"}
	}
	return nil
}

func (u upgrading) Propose(ctx context.Context, c rounds.Command) (uint64, error) {
	if _, begins := c.(rounds.BeginLedger); begins && u.older.Load() {
		return 0, replication.ErrOldMember
	}
	return u.Node.Propose(ctx, c)
}

// In the middle of a rolling upgrade there is no ledger, and a node is as ready as it
// will be: else the next one's turn would never come. Jobs go on; a device that wants to
// see a ledger is told to come again.
func TestReadyBeforeAllAreUpgraded(t *testing.T) {
	ca, err := authority.New()
	must(t, err)
	var older atomic.Bool
	older.Store(true)
	s, err := server.NewAround(alone(t, ca), func(n *replication.Node) server.Replica { return upgrading{n, &older} })
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { stop(); must(t, <-ended) }()
	eventually(t, "it is ready", func() bool { return len(s.NotReady()) == 0 })

	api, _, _ := s.Addresses()
	dial := func(role identity.Role) *grpc.ClientConn { return dialAlone(t, ca, api, role) }
	operator := rpc.NewOperatorServiceClient(dial(identity.Operator))
	spec, raw := solo.Spec(t, solo.Parameters(), solo.Terms("movies"))
	_, err = operator.CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err)
	_, err = operator.OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: spec.Job})
	must(t, err)
	eventually(t, "a round is opened", func() bool {
		r, err := operator.GetJob(t.Context(), &undertonev1.GetJobRequest{Job: spec.Job})
		must(t, err)
		return len(r.Job.Attempts) == 1
	})
	client := rpc.NewParticipantServiceClient(dial(identity.Client))
	_, err = client.Poll(t.Context(), new(undertonev1.PollRequest))
	if why := refusalOf(err); status.Code(err) != codes.Unavailable || why.GetReason() != undertonev1.Reason_REASON_NO_LEADER || why.GetRetryAfterMs() == 0 {
		t.Errorf("a device is told %v", err)
	}
	older.Store(false)
	eventually(t, "there is a ledger", func() bool {
		_, err := client.Poll(t.Context(), new(undertonev1.PollRequest))
		return err == nil
	})
	if why := s.NotReady(); len(why) > 0 {
		t.Errorf("not ready: %q", why)
	}
}
