package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// witness sees the ledger as a device or an auditor does: it keeps every checkpoint, and
// holds that each extends the one before, whichever node shows it.
type witness struct {
	signer note.Verifier // of the last
	kept   []ledger.Checkpoint
}

func (w *witness) last() (c ledger.Checkpoint) {
	if n := len(w.kept); n > 0 {
		c = w.kept[n-1]
	}
	return c
}

// sees takes what a node showed to somebody who had told it the last size.
func (w *witness) sees(shown *undertonev1.Ledger) error {
	var rotations []*ledger.KeyRotated
	for _, record := range shown.GetRotations() {
		e, err := ledger.Decode(record)
		if err != nil {
			return err
		}
		rotations = append(rotations, e.(*ledger.KeyRotated))
	}
	signer, err := ledger.FollowKeys(solo.PublicKey, rotations)
	if err != nil {
		return err
	}
	c, err := ledger.OpenCheckpoint(shown.GetCheckpoint(), signer)
	if err != nil {
		return err
	}
	proof, err := proofOf(shown.GetConsistency())
	if err != nil {
		return err
	}
	if err := w.last().Follow(c, proof); err != nil {
		return err
	}
	if c.Size > w.last().Size {
		w.kept, w.signer = append(w.kept, c), signer
	}
	return nil
}

// reserved holds that an attempt that collects is in the ledger, charged for what it is.
func (w *witness) reserved(work *undertonev1.Work) error {
	r := work.GetReservation()
	proof, err := proofOf(r.GetProof())
	if err != nil {
		return err
	}
	if err := w.last().Includes(r.GetRecord(), int64(r.GetIndex()), proof); err != nil {
		return err
	}
	e, err := ledger.Decode(r.GetRecord())
	if err != nil {
		return err
	}
	a, is := e.(*ledger.AttemptCharged)
	if !is || a.Job != work.Job || a.Round != int(work.Round) || a.Attempt != int(work.Attempt) || !bytes.Equal(a.State[:], work.StateDigest) {
		return fmt.Errorf("%s is no reservation of %v", r.GetRecord(), work)
	}
	return nil
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

// audit has an auditor look at the ledger through every node in turn, again and again,
// until the crowd is stopped. Whatever becomes of the nodes, there is one history.
func (c *cluster) audit() (w *witness, stop func()) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	w = new(witness)
	var nodes []rpc.LedgerServiceClient
	for i := range c.configs {
		nodes = append(nodes, rpc.NewLedgerServiceClient(c.dial(i, identity.Auditor, "eve")))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var index uint64
		for turn := 0; ctx.Err() == nil; turn++ {
			try, cancel := context.WithTimeout(ctx, time.Second)
			r, err := nodes[turn%len(nodes)].GetCheckpoint(try, &undertonev1.GetCheckpointRequest{
				LedgerSize: uint64(w.last().Size), MinIndex: index,
			})
			cancel()
			if err == nil {
				index = max(index, r.Index)
				if err := w.sees(r.Ledger); err != nil {
					c.t.Errorf("node-%d, at index %d: %v", turn%len(nodes), r.Index, err)
					return
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	c.t.Cleanup(stop)
	return w, stop
}

// provesItself holds that every node has the same ledger, that it verifies, extends every
// checkpoint that was ever shown, and has of a job each attempt charged once, and each
// round released once.
func (c *cluster) provesItself(job *undertonev1.Job, witnesses ...*witness) {
	t := c.t
	t.Helper()
	grown := 0
	for _, w := range witnesses {
		grown = max(grown, len(w.kept))
	}
	if grown < 2 {
		t.Errorf("nobody saw the ledger grow: %d checkpoints at the most", grown)
	}
	var same [][]byte
	for i, n := range c.nodes {
		if n == nil {
			continue
		}
		b := c.download(i)
		if same == nil {
			same = b.Records
		}
		if !slices.EqualFunc(b.Records, same, bytes.Equal) {
			t.Errorf("node-%d has %d records, another node %d, or others", i, len(b.Records), len(same))
		}
		seen := []ledger.Checkpoint{{}}
		for _, w := range witnesses {
			seen = append(seen, w.kept...)
		}
		var history *ledger.History
		for _, checkpoint := range seen {
			var err error
			if history, err = ledger.Verify(b, solo.PublicKey, checkpoint); err != nil {
				t.Fatalf("node-%d: %v, for who had seen %d records", i, err, checkpoint.Size)
			}
		}
		spec, err := rounds.ParseSpec(job.Spec)
		must(t, err)
		k := slices.IndexFunc(history.Jobs, func(j *ledger.Job) bool { return j.Name == spec.Job })
		if k < 0 {
			t.Fatalf("node-%d: job %s is not on record", i, spec.Job)
		}
		told := history.Jobs[k]
		if len(told.Attempts) != len(job.Attempts) || uint64(told.Spent) != job.SpentNanoRho || told.Released != int(job.Released) {
			t.Errorf("node-%d: the ledger tells of %d attempts, %d released, that spent %d; the job %v", i, len(told.Attempts), told.Released, told.Spent, job)
			continue
		}
		for k, a := range job.Attempts {
			is := told.Attempts[k]
			if is.Round != int(a.Round) || is.Attempt != int(a.Attempt) || is.Members != int(a.Members) ||
				(is.Status == ledger.StatusReleased) != (a.Phase == undertonev1.Phase_PHASE_RELEASED) ||
				is.Status == ledger.StatusReleased && !bytes.Equal(is.State[:], a.StateDigest) {
				t.Errorf("node-%d: the ledger tells %+v of %v", i, is, a)
			}
		}
	}
}

// download fetches a node's ledger.
func (c *cluster) download(i int) *ledger.Bundle {
	c.t.Helper()
	l := rpc.NewLedgerServiceClient(c.dial(i, identity.Auditor, "eve"))
	var file bytes.Buffer
	eventually(c.t, fmt.Sprintf("node-%d hands its ledger out", i), func() bool {
		file.Reset()
		stream, err := l.DownloadLedger(c.t.Context(), &undertonev1.DownloadLedgerRequest{})
		for err == nil {
			var part *undertonev1.DownloadLedgerResponse
			if part, err = stream.Recv(); err == nil {
				file.Write(part.Chunk)
			}
		}
		return errors.Is(err, io.EOF)
	})
	b, err := ledger.ReadBundle(bytes.NewReader(file.Bytes()), int64(file.Len()))
	must(c.t, err)
	return b
}
