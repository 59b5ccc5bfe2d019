package benchmark

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/simulations/cluster"
)

// tiny are the dimensions of a job of which only the rounds count.
func tiny(rounds int) jobs.Parameters {
	return jobs.Parameters{Config: lowrank.Config{Dim: 8, Rank: 1, Rounds: rounds, Features: lowrank.Standard, Update: lowrank.Gradient}}
}

// failover kills the leader under load, again and again, and measures the time
// to the next acknowledgement of an update that was sent after that. At the end
// every acknowledged update is sent again, to be recognised.
func failover(ctx context.Context, r *run) ([]Row, error) {
	kills := 7
	if r.Short {
		kills = 1
	}
	c, err := r.cluster(ctx, 3)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	load, err := newSteadyLoad(ctx, c, 24, 400)
	if err != nil {
		return nil, err
	}
	defer load.stop()
	var gaps []float64
	for range kills {
		leader, err := c.Leader(ctx)
		if err != nil {
			return nil, err
		}
		killed := time.Now()
		leader.Kill()
		acked, err := load.next(ctx, killed)
		if err != nil {
			return nil, err
		}
		gaps = append(gaps, seconds(acked.Sub(killed)))
		if err := leader.Start(); err != nil {
			return nil, err
		}
		if err := leader.WaitReady(ctx); err != nil {
			return nil, err
		}
		// Let it catch up: the next to be killed may be another.
		time.Sleep(300 * time.Millisecond)
	}
	load.stop()
	lost, total, err := load.lost(ctx)
	if err != nil {
		return nil, err
	}
	worst := slices.Max(gaps)
	return []Row{
		{What: "kill -9 of the leader to the next acknowledgement", Value: worst, Unit: "s", Goal: "at most 1.5 s", Met: worst <= 1.5,
			Detail: fmt.Sprintf("the worst of %d; median %.2f s", kills, median(gaps))},
		{What: "acknowledged updates lost in that", Value: float64(lost), Unit: "updates", Goal: "none", Met: lost == 0,
			Detail: fmt.Sprintf("of %d acknowledged", total)},
	}, nil
}

// steadyLoad is clients that contribute to one job after the other, each until it
// is acknowledged by some node.
type steadyLoad struct {
	c      *cluster.Cluster
	open   []*undertonev1.SubmitRequest // one a job
	names  []*identity.Bearer
	cancel context.CancelFunc
	group  *errgroup.Group

	mu    sync.Mutex
	acked [][]bool // by client and job
	waits chan ack // every acknowledgement
}

type ack struct{ sent, acked time.Time }

func newSteadyLoad(ctx context.Context, c *cluster.Cluster, clients, tasks int) (*steadyLoad, error) {
	l := &steadyLoad{c: c, waits: make(chan ack, 1<<16)}
	var created []*job
	for i := range tasks {
		t := terms(fmt.Sprintf("job-%d", i), clients)
		t.RoundSize++ // never full: nothing is released
		j, err := create(ctx, c, tiny(1), t, 1)
		if err != nil {
			return nil, err
		}
		created = append(created, j)
	}
	for _, j := range created {
		header, err := j.await(ctx, c, 1)
		if err != nil {
			return nil, err
		}
		l.open = append(l.open, request(header, j.payload(1)))
	}
	for i := range clients {
		b, err := c.Bearer(identity.Client, fmt.Sprintf("client-%d", i))
		if err != nil {
			return nil, err
		}
		l.names = append(l.names, b)
		l.acked = append(l.acked, make([]bool, tasks))
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.group, ctx = errgroup.WithContext(ctx)
	for k := range clients {
		l.group.Go(func() error { return l.contribute(ctx, k) })
	}
	return l, nil
}

// contribute works through client k's jobs, slowly enough to last.
func (l *steadyLoad) contribute(ctx context.Context, k int) error {
	nodes, err := l.connect(k)
	if err != nil {
		return err
	}
	defer disconnect(nodes)
	at := k
	for i := range l.open {
		for {
			sent := time.Now()
			attempt, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			_, err := nodes[at%len(nodes)].Submit(attempt, l.open[i])
			cancel()
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				l.waits <- ack{sent, time.Now()}
				break
			}
			at++
			time.Sleep(5 * time.Millisecond)
		}
		l.mu.Lock()
		l.acked[k][i] = true
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (l *steadyLoad) connect(k int) ([]*participant, error) {
	var out []*participant
	for _, address := range l.c.Servers() {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(l.names[k])), quickReconnect)
		if err != nil {
			return nil, err
		}
		out = append(out, &participant{undertonev1grpc.NewParticipantServiceClient(conn), conn})
	}
	return out, nil
}

// next returns when the first update that was sent after t was acknowledged.
func (l *steadyLoad) next(ctx context.Context, t time.Time) (time.Time, error) {
	for {
		select {
		case a := <-l.waits:
			if a.sent.After(t) {
				return a.acked, nil
			}
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-time.After(30 * time.Second):
			return time.Time{}, errors.New("no acknowledgement for 30 s")
		}
	}
}

func (l *steadyLoad) stop() {
	l.cancel()
	l.group.Wait()
}

// lost sends every acknowledged update again, and counts those that the servers
// do not know.
func (l *steadyLoad) lost(ctx context.Context) (lost, total int, err error) {
	for k := range l.names {
		nodes, err := l.connect(k)
		if err != nil {
			return 0, 0, err
		}
		for i, acked := range l.acked[k] {
			if !acked {
				continue
			}
			total++
			r, err := nodes[k%len(nodes)].Submit(ctx, l.open[i])
			if err != nil {
				disconnect(nodes)
				return 0, 0, errors.New(status.Convert(err).Message())
			}
			if !r.Duplicate {
				lost++
			}
		}
		disconnect(nodes)
	}
	return lost, total, nil
}

// manyRounds runs two jobs of 500 rounds through three nodes, watches their
// memory, and starts one of them again.
func manyRounds(ctx context.Context, r *run) ([]Row, error) {
	const tasks, clients = 2, 4
	each := 500
	if r.Short {
		each = 20
	}
	c, err := r.cluster(ctx, 3)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	var open []*job
	for i := range tasks {
		// One release before the updates: the initialisation.
		j, err := create(ctx, c, tiny(each-1), terms(fmt.Sprintf("job-%d", i), clients), 0)
		if err != nil {
			return nil, err
		}
		open = append(open, j)
	}
	crowd, err := participants(c, clients)
	if err != nil {
		return nil, err
	}
	defer disconnect(crowd)
	// Of every tenth of the run, the largest resident set of any node.
	peaks := make([]float64, 10)
	for round := 1; round <= each; round++ {
		if _, err := submitAll(ctx, c, open, crowd, round); err != nil {
			return nil, err
		}
		for _, n := range c.Nodes() {
			tenth := (round - 1) * len(peaks) / each
			peaks[tenth] = max(peaks[tenth], resident(n))
		}
	}
	for _, j := range open {
		if _, err := j.await(ctx, c, each+1); err != nil {
			return nil, err
		}
	}
	early, late := slices.Max(peaks[1:4]), slices.Max(peaks[7:])
	rows := []Row{{What: fmt.Sprintf("server memory over %d rounds, last tenths over first", tasks*each), Value: late / early, Unit: "x",
		Goal: "flat: at most 1.1", Met: late <= 1.1*early,
		Detail: fmt.Sprintf("largest resident set of three nodes by tenths, MiB: %s", joined(peaks))}}

	var starts []float64
	for range 5 {
		n := c.Nodes()[0]
		n.Kill()
		begin := time.Now()
		if err := n.Start(); err != nil {
			return nil, err
		}
		if err := n.WaitReady(ctx); err != nil {
			return nil, err
		}
		starts = append(starts, seconds(time.Since(begin)))
	}
	return append(rows, Row{What: fmt.Sprintf("start of a node with %d released rounds", tasks*each), Value: slices.Max(starts), Unit: "s",
		Goal: "at most 2 s", Met: slices.Max(starts) <= 2,
		Detail: fmt.Sprintf("process started to ready, the worst of %d; median %.2f s", len(starts), median(starts))}), nil
}

func joined(x []float64) string {
	var out []string
	for _, v := range x {
		out = append(out, fmt.Sprintf("%.0f", v))
	}
	return strings.Join(out, " ")
}

// resident is the process's resident set in MiB, 0 where the system does not
// say.
func resident(n *cluster.Node) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.Pid()))
	if err != nil {
		return 0
	}
	var size, pages float64
	fmt.Sscan(string(b), &size, &pages)
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

// million registers a million clients in one open round: as another node would,
// in batches, since a million handshakes would measure only those.
func million(ctx context.Context, r *run) ([]Row, error) {
	members, batch := 1_000_000, 1000
	if r.Short {
		members = 20_000
	}
	if runtime.GOOS != "linux" {
		return nil, errors.New("the resident set of another process is known on linux only")
	}
	c, err := r.cluster(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	t := terms("million", members)
	t.RoundSize++
	t.NMin = 1000
	j, err := create(ctx, c, small, t, 1)
	if err != nil {
		return nil, err
	}
	if _, err := j.await(ctx, c, 1); err != nil {
		return nil, err
	}
	node, err := c.Bearer(identity.Node, "batches", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(c.Nodes()[0].Peer, grpc.WithTransportCredentials(grpctls.Client(node)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	nodes := undertonev1grpc.NewNodeServiceClient(conn)
	// Nodes name their cluster.
	ctx = metadata.AppendToOutgoingContext(ctx, "undertone-cluster", cluster.Name)
	sum := aggregation.Pack(nil, make([]int64, j.spec.Releases[0].Length), int(j.spec.Lattice.ModulusBits/8))
	var g errgroup.Group
	g.SetLimit(4)
	for first := 0; first < members; first += batch {
		g.Go(func() error {
			var ids []byte
			for i := first; i < first+batch; i++ {
				ids = append(ids, clientID(fmt.Sprintf("client-%d", i))...)
			}
			command, err := collect(j.spec.Job, ids, sum)
			if err != nil {
				return err
			}
			response, err := nodes.Propose(ctx, &undertonev1.ProposeRequest{Command: command})
			if err == nil && response.Refusal != nil {
				err = errors.New(response.Refusal.Detail)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	used := resident(c.Nodes()[0])
	return []Row{{What: fmt.Sprintf("one open round with %d participants", members), Value: used, Unit: "MiB resident",
		Goal: "at most 300 MiB", Met: used <= 300}}, nil
}
