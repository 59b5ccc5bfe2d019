package encoding

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

const (
	// SnapshotVersion is the highest version of snapshots. Each is written as the
	// lowest that holds it: version 1 has no ledger, and no job that was closed.
	SnapshotVersion = 2
	// piece is how much of a list or of a blob one record carries.
	piece = 256 << 10
	// maxRecord bounds a record. A job with its attempts, at most 40 MB of them, and
	// its members, of which a million take 125 KB, is the largest there is.
	maxRecord = 64 << 20
)

// State is a machine's state at an entry of the log.
type State struct {
	Index    uint64        // the last entry that was applied
	Hash     rounds.Digest // the running hash after it
	Snapshot *rounds.Snapshot
}

// WriteSnapshot writes a state as a stream of records.
func WriteSnapshot(w io.Writer, s *State) error {
	out := &recordWriter{w: bufio.NewWriterSize(w, piece), sum: sha256.New()}
	out.put(&undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Header{Header: &undertonev1.SnapshotHeader{
		Version: versionOf(s.Snapshot), Index: s.Index, Hash: s.Hash[:], Era: uint32(s.Snapshot.Era),
	}}})
	const ids = piece / len(rounds.ClientID{})
	for c := s.Snapshot.Clients; len(c) > 0; {
		n := min(len(c), ids)
		out.put(&undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Clients{Clients: &undertonev1.SnapshotClients{
			Ids: marshalIDs(c[:n]),
		}}})
		c = c[n:]
	}
	for i := range s.Snapshot.Jobs {
		out.job(&s.Snapshot.Jobs[i])
	}
	for records := s.Snapshot.Ledger; len(records) > 0; {
		n := fitting(records)
		out.put(&undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Ledger{Ledger: &undertonev1.SnapshotLedger{
			Records: records[:n],
		}}})
		records = records[n:]
	}
	for i := range s.Snapshot.Staged {
		b := &s.Snapshot.Staged[i]
		out.blob(key(b.Job, b.Round, b.Attempt), b.Digest, b.Size, b.Bytes, true)
	}
	out.put(&undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Trailer{Trailer: &undertonev1.SnapshotTrailer{
		Digest: out.sum.Sum(nil),
	}}})
	if out.err != nil {
		return out.err
	}
	return out.w.Flush()
}

// versionOf is the version that a snapshot takes.
func versionOf(s *rounds.Snapshot) uint32 {
	if len(s.Ledger) > 0 || slices.ContainsFunc(s.Jobs, func(j rounds.JobSnapshot) bool { return j.State == rounds.JobClosed }) {
		return 2
	}
	return 1
}

// fitting is how many of the ledger's records go into one of the snapshot's.
func fitting(records [][]byte) (n int) {
	for size := 0; n < len(records) && (n == 0 || size+len(records[n]) <= piece); n++ {
		size += len(records[n])
	}
	return n
}

type recordWriter struct {
	w   *bufio.Writer
	sum hash.Hash
	err error
}

func (w *recordWriter) put(r *undertonev1.SnapshotRecord) {
	if n := proto.Size(r); w.err == nil && n > maxRecord {
		w.err = fmt.Errorf("snapshot: a record of %d bytes, and may have %d", n, maxRecord)
	}
	if w.err == nil {
		_, w.err = protodelim.MarshalTo(io.MultiWriter(w.w, w.sum), r)
	}
}

func (w *recordWriter) job(j *rounds.JobSnapshot) {
	m := &undertonev1.SnapshotJob{
		Spec: j.Spec, State: undertonev1.JobState(j.State), Until: uint32(j.Until),
		LatestDigest: j.Latest.Digest[:], LatestSize: uint64(j.Latest.Size),
		Members: j.Members, Before: j.Before, SumLength: uint32(len(j.Sum)),
	}
	for i := range j.Attempts {
		m.Attempts = append(m.Attempts, attemptMessage(&j.Attempts[i]))
	}
	w.put(&undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Job{Job: m}})
	for sum := j.Sum; len(sum) > 0; {
		n := min(len(sum), piece/8)
		b := make([]byte, 0, 8*n)
		for _, x := range sum[:n] {
			b = binary.LittleEndian.AppendUint64(b, uint64(x))
		}
		w.put(&undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Sum{Sum: &undertonev1.SnapshotSum{Sum: b}}})
		sum = sum[n:]
	}
	w.blob(nil, j.Latest.Digest, j.Latest.Size, j.Latest.Bytes, false)
}

func (w *recordWriter) blob(k *undertonev1.AttemptKey, d rounds.Digest, size int64, b []byte, staged bool) {
	for first := true; first || len(b) > 0; first = false {
		n := min(len(b), piece)
		w.put(&undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Blob{Blob: &undertonev1.SnapshotBlob{
			Key: k, Digest: d[:], Size: uint64(size), Piece: b[:n], Staged: staged,
		}}})
		b = b[n:]
	}
}

// ReadSnapshot reads a state and checks that not a bit of it changed since it
// was written. Fails with ErrNewer or ErrMalformed, or r's error.
func ReadSnapshot(r io.Reader) (*State, error) {
	in := &recordReader{r: bufio.NewReaderSize(r, piece), sum: sha256.New()}
	first, err := in.next()
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	h := first.GetHeader()
	switch {
	case h == nil || h.GetVersion() == 0:
		return nil, fmt.Errorf("snapshot: %w: no header", ErrMalformed)
	case h.GetVersion() > SnapshotVersion:
		return nil, fmt.Errorf("snapshot of version %d: %w", h.GetVersion(), ErrNewer)
	}
	b := builder{snapshot: &rounds.Snapshot{Era: int(h.GetEra())}}
	s := &State{Index: h.GetIndex(), Snapshot: b.snapshot}
	if s.Hash, err = digest(h.GetHash()); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	for {
		before := in.sum.Sum(nil)
		m, err := in.next()
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		if t := m.GetTrailer(); t != nil {
			if !bytes.Equal(t.GetDigest(), before) {
				return nil, fmt.Errorf("snapshot: %w: its digest does not match its bytes", ErrMalformed)
			}
			if _, err := in.r.ReadByte(); err != io.EOF {
				return nil, fmt.Errorf("snapshot: %w: bytes after its end", ErrMalformed)
			}
			if v := versionOf(b.snapshot); v > h.GetVersion() {
				return nil, fmt.Errorf("snapshot of version %d: %w: it has what came with version %d", h.GetVersion(), ErrMalformed, v)
			}
			return s, b.complete()
		}
		if err := b.add(m); err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
	}
}

// builder puts a snapshot together from its records.
type builder struct {
	snapshot *rounds.Snapshot
	sums     []uint32 // the length of each job's sum
}

// add takes up one record between header and trailer. Sums and latest states
// follow their job, pieces of a blob one another.
func (s *builder) add(m *undertonev1.SnapshotRecord) (err error) {
	snap := s.snapshot
	var last *rounds.JobSnapshot
	if n := len(snap.Jobs); n > 0 {
		last = &snap.Jobs[n-1]
	}
	switch r := m.GetRecord().(type) {
	case *undertonev1.SnapshotRecord_Clients:
		snap.Clients, err = unmarshalIDs(snap.Clients, r.Clients.GetIds())
		return err
	case *undertonev1.SnapshotRecord_Job:
		j, err := job(r.Job)
		snap.Jobs = append(snap.Jobs, j)
		s.sums = append(s.sums, r.Job.GetSumLength())
		return err
	case *undertonev1.SnapshotRecord_Sum:
		b := r.Sum.GetSum()
		if last == nil || len(b)%8 != 0 {
			return fmt.Errorf("%w: a sum without its job", ErrMalformed)
		}
		for ; len(b) > 0; b = b[8:] {
			last.Sum = append(last.Sum, int64(binary.LittleEndian.Uint64(b)))
		}
		return nil
	case *undertonev1.SnapshotRecord_Ledger:
		snap.Ledger = append(snap.Ledger, r.Ledger.GetRecords()...)
		return nil
	case *undertonev1.SnapshotRecord_Blob:
		d, err := digest(r.Blob.GetDigest())
		if err != nil {
			return err
		}
		if r.Blob.GetStaged() {
			return addStaged(snap, r.Blob, d)
		}
		if last == nil || last.Latest.Digest != d {
			return fmt.Errorf("%w: a state without its job", ErrMalformed)
		}
		last.Latest.Bytes, err = grow(last.Latest.Bytes, r.Blob.GetPiece(), last.Latest.Size)
		return err
	default:
		return fmt.Errorf("%w: a record that this version does not know", ErrMalformed)
	}
}

func addStaged(snap *rounds.Snapshot, m *undertonev1.SnapshotBlob, d rounds.Digest) (err error) {
	k := m.GetKey()
	b := rounds.StagedBlob{
		Job: k.GetJob(), Round: int(k.GetRound()), Attempt: int(k.GetAttempt()),
		Digest: d, Size: int64(m.GetSize()),
	}
	if n := len(snap.Staged); n > 0 {
		last := &snap.Staged[n-1]
		if last.Job == b.Job && last.Round == b.Round && last.Attempt == b.Attempt && last.Digest == d && last.Size == b.Size {
			last.Bytes, err = grow(last.Bytes, m.GetPiece(), b.Size)
			return err
		}
	}
	b.Bytes, err = grow(nil, m.GetPiece(), b.Size)
	snap.Staged = append(snap.Staged, b)
	return err
}

// grow appends a piece to a blob of which size bytes are known to exist.
func grow(b, piece []byte, size int64) ([]byte, error) {
	if int64(len(b)+len(piece)) > size {
		return nil, fmt.Errorf("%w: more bytes than a blob has", ErrMalformed)
	}
	return append(b, piece...), nil
}

// complete fails unless every sum and latest state is all there.
func (s *builder) complete() error {
	for i := range s.snapshot.Jobs {
		j := &s.snapshot.Jobs[i]
		if len(j.Sum) != int(s.sums[i]) || int64(len(j.Latest.Bytes)) != j.Latest.Size {
			return fmt.Errorf("snapshot: %w: a job without all of its sum and its state", ErrMalformed)
		}
	}
	return nil
}

type recordReader struct {
	r   *bufio.Reader
	sum hash.Hash // of everything read
}

func (in *recordReader) next() (*undertonev1.SnapshotRecord, error) {
	head, err := in.r.Peek(binary.MaxVarintLen64)
	size, n := binary.Uvarint(head)
	switch {
	case n == 0 && err != nil:
		return nil, truncated(err)
	case n <= 0 || size > maxRecord:
		return nil, fmt.Errorf("%w: a record that is too long", ErrMalformed)
	}
	in.sum.Write(head[:n])
	in.r.Discard(n)
	// Grown as it is read: a damaged size allocates nothing.
	b, err := io.ReadAll(io.LimitReader(in.r, int64(size)))
	if err == nil && uint64(len(b)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, truncated(err)
	}
	in.sum.Write(b)
	m := new(undertonev1.SnapshotRecord)
	return m, unmarshal(b, m)
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends early", ErrMalformed)
	}
	return err
}

func job(m *undertonev1.SnapshotJob) (j rounds.JobSnapshot, err error) {
	j = rounds.JobSnapshot{
		Spec: m.GetSpec(), State: rounds.JobState(m.GetState()), Until: int(m.GetUntil()),
		Latest:  rounds.Blob{Size: int64(m.GetLatestSize())},
		Members: m.GetMembers(), Before: m.GetBefore(),
	}
	if j.Latest.Digest, err = digest(m.GetLatestDigest()); err != nil {
		return j, err
	}
	for _, a := range m.GetAttempts() {
		x, err := attempt(a)
		if err != nil {
			return j, err
		}
		j.Attempts = append(j.Attempts, x)
	}
	return j, nil
}

func attemptMessage(a *rounds.Attempt) *undertonev1.Attempt {
	return &undertonev1.Attempt{
		Round: uint32(a.Round), Attempt: uint32(a.Attempt), Phase: undertonev1.Phase(a.Phase),
		Members: uint32(a.Members), ChargeNanoRho: uint64(a.Charge),
		SumDigest: a.Sum[:], StateDigest: a.State[:], Why: a.Why,
	}
}

func attempt(m *undertonev1.Attempt) (a rounds.Attempt, err error) {
	a = rounds.Attempt{
		Round: int(m.GetRound()), Attempt: int(m.GetAttempt()), Phase: rounds.Phase(m.GetPhase()),
		Members: int(m.GetMembers()), Charge: accounting.NanoRho(m.GetChargeNanoRho()), Why: m.GetWhy(),
	}
	if a.Sum, err = digest(m.GetSumDigest()); err != nil {
		return a, err
	}
	a.State, err = digest(m.GetStateDigest())
	return a, err
}
