package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

// witness sees the ledger from outside, as a client or an auditor does, who asks now this
// node and now that one. It keeps every checkpoint, and holds that each extends the one
// before (promise 7).
type witness struct {
	name string
	key  note.Verifier
	log  *history
	kept []ledger.Checkpoint
}

// last is the last checkpoint, the zero one if there is none.
func (w *witness) last() (c ledger.Checkpoint) {
	if n := len(w.kept); n > 0 {
		c = w.kept[n-1]
	}
	return c
}

// sees takes what was shown to it when it had told the size of its last checkpoint.
func (w *witness) sees(shown *undertonev1.Ledger) {
	c, err := ledger.OpenCheckpoint(shown.GetCheckpoint(), w.key)
	if err == nil {
		var proof ledger.Proof
		if proof, err = proofOf(shown.GetConsistency()); err == nil {
			err = w.last().Follow(c, proof)
		}
	}
	if err != nil {
		w.log.violation("%s was shown a ledger after %d records: %v", w.name, w.last().Size, err)
		return
	}
	if c.Size > w.last().Size {
		w.kept = append(w.kept, c)
	}
}

// reserved holds that an attempt was charged before it collects: that the last checkpoint
// has its reservation, from the state that contributions are computed from.
func (w *witness) reserved(work *undertonev1.Work) {
	k := attemptKey{work.Job, int(work.Round), int(work.Attempt)}
	r := work.GetReservation()
	proof, err := proofOf(r.GetProof())
	if err == nil {
		err = w.last().Includes(r.GetRecord(), int64(r.GetIndex()), proof)
	}
	var e ledger.Entry
	if err == nil {
		e, err = ledger.Decode(r.GetRecord())
	}
	if err != nil {
		w.log.violation("%v collects: its reservation: %v", k, err)
		return
	}
	a, is := e.(*ledger.AttemptCharged)
	if !is || k != (attemptKey{a.Job, a.Round, a.Attempt}) || !bytes.Equal(a.State[:], work.StateDigest) {
		w.log.violation("%v collects, and its reservation is %s", k, r.GetRecord())
	}
}

func proofOf(hashes [][]byte) (p ledger.Proof, err error) {
	for _, h := range hashes {
		if len(h) != len(ledger.Digest{}) {
			return nil, fmt.Errorf("a hash of %d bytes", len(h))
		}
		p = append(p, ledger.Digest(h))
	}
	return p, nil
}

// holds checks a node's ledger, once all is over: that it verifies, that it extends every
// checkpoint that anybody was shown, and that it tells what was seen of each job. The
// keys that witnesses have are those that it began with.
func (h *history) holds(node string, b *ledger.Bundle, public string, witnesses []*witness) {
	log, err := ledger.Restore(b.Records)
	if err != nil {
		h.violation("%s: the ledger: %v", node, err)
		return
	}
	for _, w := range witnesses {
		for _, kept := range w.kept {
			if root, err := log.Root(min(kept.Size, log.Size())); err != nil || kept.Size > log.Size() || root != kept.Root {
				h.violation("%s: the ledger does not extend the %d records that %s was shown", node, kept.Size, w.name)
				return
			}
		}
	}
	told, err := ledger.Verify(b, public, ledger.Checkpoint{})
	if err != nil {
		h.violation("%s: the ledger: %v", node, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, seen := range h.jobs {
		if seen.shown == nil {
			continue // nobody knows whether it was created
		}
		i := slices.IndexFunc(told.Jobs, func(j *ledger.Job) bool { return j.Name == name })
		if i < 0 {
			h.violations = append(h.violations, fmt.Sprintf("%s: job %s is not in the ledger", node, name))
			continue
		}
		h.tells(node, told.Jobs[i], seen.shown)
	}
}

// tells holds that the ledger has the attempts that were shown, as they were, and the
// states that everybody saw. The caller has the lock.
func (h *history) tells(node string, told *ledger.Job, shown *undertonev1.Job) {
	for i, a := range shown.Attempts {
		k := attemptKey{told.Name, int(a.Round), int(a.Attempt)}
		if i >= len(told.Attempts) || k != (attemptKey{told.Name, told.Attempts[i].Round, told.Attempts[i].Attempt}) {
			h.violations = append(h.violations, fmt.Sprintf("%s: the ledger lacks %v", node, k))
			return
		}
		is := told.Attempts[i]
		status := map[undertonev1.Phase]ledger.Status{
			undertonev1.Phase_PHASE_RELEASED: ledger.StatusReleased, undertonev1.Phase_PHASE_FAILED: ledger.StatusFailed,
		}[a.Phase]
		if status != "" && (is.Status != status || is.Members != int(a.Members)) {
			h.violations = append(h.violations, fmt.Sprintf("%s: in the ledger %v is %s with %d members, and was shown %v with %d",
				node, k, is.Status, is.Members, a.Phase, a.Members))
		}
		if is.Status == ledger.StatusReleased {
			h.sawState(told.Name, is.Round, is.State[:])
		}
	}
}

// audit has the auditor look through one node after the other until ctx is done.
func (r *run) audit(ctx context.Context, w *witness) error {
	bearer, err := r.cluster.Bearer(identity.Auditor, w.name)
	if err != nil {
		return err
	}
	var nodes []undertonev1grpc.LedgerServiceClient
	for _, address := range r.cluster.Servers() {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(bearer)), reconnect)
		if err != nil {
			return err
		}
		defer conn.Close()
		nodes = append(nodes, undertonev1grpc.NewLedgerServiceClient(conn))
	}
	var index uint64
	for turn := 0; ctx.Err() == nil; turn++ {
		call, cancel := context.WithTimeout(ctx, time.Second)
		response, err := nodes[turn%len(nodes)].GetCheckpoint(call, &undertonev1.GetCheckpointRequest{
			LedgerSize: uint64(w.last().Size), MinIndex: index,
		})
		cancel()
		if err == nil {
			index = max(index, response.Index)
			w.sees(response.Ledger)
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil
}

// stockOfLedgers downloads every node's ledger and checks it, once everybody who saw it
// has stopped.
func (r *run) stockOfLedgers() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	bearer, err := r.cluster.Bearer(identity.Auditor, "auditor")
	if err != nil {
		return err
	}
	var longest [][]byte
	for _, n := range r.cluster.Nodes() {
		b, err := download(ctx, n.API, bearer)
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		// Rounds go on, and so does the ledger between two downloads.
		same := min(len(b.Records), len(longest))
		if !slices.EqualFunc(b.Records[:same], longest[:same], bytes.Equal) {
			r.history.violation("%s: the ledger is another one than other nodes'", n.Name)
		}
		if len(b.Records) > len(longest) {
			longest = b.Records
		}
		r.history.holds(n.Name, b, r.ledgerKey, r.witnesses)
	}
	r.report.Records = len(longest)
	for _, w := range r.witnesses {
		r.report.Checkpoints += len(w.kept)
	}
	return nil
}

func download(ctx context.Context, address string, bearer *identity.Bearer) (*ledger.Bundle, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(bearer)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stream, err := undertonev1grpc.NewLedgerServiceClient(conn).DownloadLedger(ctx, &undertonev1.DownloadLedgerRequest{})
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ledger.ReadBundle(bytes.NewReader(file.Bytes()), int64(file.Len()))
		}
		if err != nil {
			return nil, err
		}
		file.Write(r.Chunk)
	}
}

// newWitness is somebody with the key that the cluster's ledger began with.
func (r *run) newWitness(name string) (*witness, error) {
	key, err := ledger.ParseKey(r.ledgerKey)
	if err != nil {
		return nil, err
	}
	w := &witness{name: name, key: key, log: r.history}
	r.witnesses = append(r.witnesses, w)
	return w, nil
}

// readLedgerKey reads the public key's file.
func (r *run) readLedgerKey() error {
	b, err := os.ReadFile(r.cluster.LedgerKey())
	r.ledgerKey = string(bytes.TrimSpace(b))
	return err
}
