// Package encoding writes log commands and snapshots as bytes and reads them
// back: the two formats that outlive the program that wrote them (FORMAT.md).
//
// What it reads it checks: a command or a record that holds a field which this
// program does not know is an error, never a guess, because a replica that
// skipped what it did not understand would no longer hold the same state.
package encoding

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// CommandVersion is the highest version of commands. Each is written as the lowest
// that holds it: version 1 is commands without a date of before there was a ledger,
// and so a cluster that has none writes what older programs read.
const CommandVersion = 2

// ErrNewer says that bytes were written by a newer version of the program.
var ErrNewer = errors.New("written by a newer version")

// ErrMalformed says that bytes are no command, or no snapshot.
var ErrMalformed = errors.New("malformed")

// MarshalCommand returns a command as the log holds it.
func MarshalCommand(c rounds.Command) ([]byte, error) {
	m := &undertonev1.Command{Version: Version(c)}
	if dated, ok := c.(rounds.Dated); ok {
		m.AtMs, c = dated.At, dated.Command
	}
	switch c := c.(type) {
	case rounds.CreateJob:
		m.Command = &undertonev1.Command_CreateJob{CreateJob: &undertonev1.CreateJob{Spec: c.Spec, State: blobMessage(c.State)}}
	case rounds.Run:
		m.Command = &undertonev1.Command_Run{Run: &undertonev1.Run{Job: c.Job, Until: uint32(c.Until)}}
	case rounds.OpenRound:
		m.Command = &undertonev1.Command_OpenRound{OpenRound: &undertonev1.OpenRound{Key: key(c.Job, c.Round, c.Attempt)}}
	case rounds.Stage:
		m.Command = &undertonev1.Command_Stage{Stage: &undertonev1.Stage{
			Key: key(c.Job, c.Round, c.Attempt), Digest: c.Digest[:],
			Size: uint64(c.Size), Offset: uint64(c.Offset), Piece: c.Piece,
		}}
	case rounds.Collect:
		m.Command = &undertonev1.Command_Collect{Collect: &undertonev1.Collect{
			Key: key(c.Job, c.Round, c.Attempt), Members: marshalIDs(c.Members), Sum: blobMessage(c.Sum),
		}}
	case rounds.CloseRound:
		m.Command = &undertonev1.Command_CloseRound{CloseRound: &undertonev1.CloseRound{Key: key(c.Job, c.Round, c.Attempt)}}
	case rounds.ReleaseRound:
		m.Command = &undertonev1.Command_ReleaseRound{ReleaseRound: &undertonev1.ReleaseRound{
			Key: key(c.Job, c.Round, c.Attempt), State: blobMessage(c.State),
		}}
	case rounds.FailRound:
		m.Command = &undertonev1.Command_FailRound{FailRound: &undertonev1.FailRound{Key: key(c.Job, c.Round, c.Attempt), Why: c.Why}}
	case rounds.BeginLedger:
		m.Command = &undertonev1.Command_BeginLedger{BeginLedger: &undertonev1.BeginLedger{Origin: c.Origin, Key: c.Key}}
	case rounds.RotateKey:
		m.Command = &undertonev1.Command_RotateKey{RotateKey: &undertonev1.RotateKey{Key: c.Key, Endorsement: c.Endorsement}}
	case rounds.CloseJob:
		m.Command = &undertonev1.Command_CloseJob{CloseJob: &undertonev1.CloseJob{Job: c.Job}}
	case rounds.RecordCanary:
		x := c.Measured
		m.Command = &undertonev1.Command_RecordCanary{RecordCanary: &undertonev1.RecordCanary{
			Job: x.Job, By: x.By, ClaimedMicroEpsilon: x.Claimed, LowerMicroEpsilon: x.Lower, Delta: x.Delta,
			ConfidencePpm: x.Confidence, Trials: x.Trials, Passed: x.Passed, MeasuredMs: x.Measured,
			UpperMicroEpsilon: x.Upper, How: x.How,
		}}
	default:
		return nil, fmt.Errorf("command %T has no encoding", c)
	}
	return proto.Marshal(m)
}

// Version is the lowest that holds a command.
func Version(c rounds.Command) uint32 {
	switch c := c.(type) {
	case rounds.Dated:
		if c.At == 0 {
			return Version(c.Command)
		}
		return 2
	case rounds.BeginLedger, rounds.RotateKey, rounds.CloseJob, rounds.RecordCanary:
		return 2
	}
	return 1
}

// UnmarshalCommand reads a command. Fails with ErrNewer or ErrMalformed.
func UnmarshalCommand(b []byte) (rounds.Command, error) {
	var m undertonev1.Command
	if err := unmarshal(b, &m); err != nil {
		// A newer version may hold what this one cannot read.
		if m.Version > CommandVersion {
			return nil, fmt.Errorf("command of version %d: %w", m.Version, ErrNewer)
		}
		return nil, fmt.Errorf("command: %w", err)
	}
	switch {
	case m.Version > CommandVersion:
		return nil, fmt.Errorf("command of version %d: %w", m.Version, ErrNewer)
	case m.Version == 0:
		return nil, fmt.Errorf("command without a version: %w", ErrMalformed)
	}
	c, err := command(&m)
	if err != nil {
		return nil, err
	}
	if m.AtMs != 0 {
		c = rounds.Dated{At: m.AtMs, Command: c}
	}
	if v := Version(c); v > m.Version {
		return nil, fmt.Errorf("command of version %d with what came in version %d: %w", m.Version, v, ErrMalformed)
	}
	return c, nil
}

// command returns the command in a message, but for its date.
func command(m *undertonev1.Command) (rounds.Command, error) {
	switch c := m.Command.(type) {
	case *undertonev1.Command_CreateJob:
		state, err := blob(c.CreateJob.GetState())
		return rounds.CreateJob{Spec: c.CreateJob.GetSpec(), State: state}, err
	case *undertonev1.Command_Run:
		return rounds.Run{Job: c.Run.GetJob(), Until: int(c.Run.GetUntil())}, nil
	case *undertonev1.Command_OpenRound:
		k := c.OpenRound.GetKey()
		return rounds.OpenRound{Job: k.GetJob(), Round: int(k.GetRound()), Attempt: int(k.GetAttempt())}, nil
	case *undertonev1.Command_Stage:
		k, s := c.Stage.GetKey(), c.Stage
		d, err := digest(s.GetDigest())
		return rounds.Stage{
			Job: k.GetJob(), Round: int(k.GetRound()), Attempt: int(k.GetAttempt()), Digest: d,
			Size: int64(s.GetSize()), Offset: int64(s.GetOffset()), Piece: s.GetPiece(),
		}, err
	case *undertonev1.Command_Collect:
		k := c.Collect.GetKey()
		members, err := unmarshalIDs(nil, c.Collect.GetMembers())
		if err != nil {
			return nil, err
		}
		sum, err := blob(c.Collect.GetSum())
		return rounds.Collect{
			Job: k.GetJob(), Round: int(k.GetRound()), Attempt: int(k.GetAttempt()),
			Members: members, Sum: sum,
		}, err
	case *undertonev1.Command_CloseRound:
		k := c.CloseRound.GetKey()
		return rounds.CloseRound{Job: k.GetJob(), Round: int(k.GetRound()), Attempt: int(k.GetAttempt())}, nil
	case *undertonev1.Command_ReleaseRound:
		k := c.ReleaseRound.GetKey()
		state, err := blob(c.ReleaseRound.GetState())
		return rounds.ReleaseRound{Job: k.GetJob(), Round: int(k.GetRound()), Attempt: int(k.GetAttempt()), State: state}, err
	case *undertonev1.Command_FailRound:
		k := c.FailRound.GetKey()
		return rounds.FailRound{Job: k.GetJob(), Round: int(k.GetRound()), Attempt: int(k.GetAttempt()), Why: c.FailRound.GetWhy()}, nil
	case *undertonev1.Command_BeginLedger:
		return rounds.BeginLedger{Origin: c.BeginLedger.GetOrigin(), Key: c.BeginLedger.GetKey()}, nil
	case *undertonev1.Command_RotateKey:
		return rounds.RotateKey{Key: c.RotateKey.GetKey(), Endorsement: c.RotateKey.GetEndorsement()}, nil
	case *undertonev1.Command_CloseJob:
		return rounds.CloseJob{Job: c.CloseJob.GetJob()}, nil
	case *undertonev1.Command_RecordCanary:
		x := c.RecordCanary
		return rounds.RecordCanary{Measured: ledger.CanaryMeasured{
			Job: x.GetJob(), By: x.GetBy(), Claimed: x.GetClaimedMicroEpsilon(), Lower: x.GetLowerMicroEpsilon(), Delta: x.GetDelta(),
			Confidence: x.GetConfidencePpm(), Trials: x.GetTrials(), Passed: x.GetPassed(), Measured: x.GetMeasuredMs(),
			Upper: x.GetUpperMicroEpsilon(), How: x.GetHow(),
		}}, nil
	default:
		return nil, fmt.Errorf("a command that this version does not know: %w", ErrMalformed)
	}
}

// unmarshal reads a message in which every byte is accounted for: what is
// unknown, or said twice, makes it shorter when it is written again.
func unmarshal(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if proto.Size(m) != len(b) {
		return fmt.Errorf("%w: a field that this version does not know", ErrMalformed)
	}
	return nil
}

func key(job string, round, attempt int) *undertonev1.AttemptKey {
	return &undertonev1.AttemptKey{Job: job, Round: uint32(round), Attempt: uint32(attempt)}
}

func blobMessage(b rounds.Blob) *undertonev1.Blob {
	return &undertonev1.Blob{Digest: b.Digest[:], Size: uint64(b.Size), Bytes: b.Bytes}
}

func blob(m *undertonev1.Blob) (rounds.Blob, error) {
	d, err := digest(m.GetDigest())
	b := rounds.Blob{Digest: d, Size: int64(m.GetSize())}
	if len(m.GetBytes()) > 0 { // else staged: nil says so
		b.Bytes = m.GetBytes()
	}
	return b, err
}

func digest(b []byte) (d rounds.Digest, err error) {
	if len(b) != len(d) {
		return d, fmt.Errorf("%w: a digest of %d bytes", ErrMalformed, len(b))
	}
	copy(d[:], b)
	return d, nil
}

func marshalIDs(ids []rounds.ClientID) []byte {
	b := make([]byte, 0, len(ids)*len(rounds.ClientID{}))
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	return b
}

// unmarshalIDs appends the client ids in b to ids.
func unmarshalIDs(ids []rounds.ClientID, b []byte) ([]rounds.ClientID, error) {
	const size = len(rounds.ClientID{})
	if len(b)%size != 0 {
		return nil, fmt.Errorf("%w: client ids of %d bytes", ErrMalformed, len(b))
	}
	if ids == nil {
		ids = make([]rounds.ClientID, 0, len(b)/size)
	}
	for ; len(b) > 0; b = b[size:] {
		ids = append(ids, rounds.ClientID(b[:size]))
	}
	return ids, nil
}

// Refusal returns a refusal as a message.
func Refusal(r *rounds.Refusal) *undertonev1.Refusal {
	m := &undertonev1.Refusal{Reason: undertonev1.Reason(r.Reason), Detail: r.Detail, Room: uint32(r.Room)}
	for _, i := range r.Counted {
		m.Members = append(m.Members, uint32(i))
	}
	return m
}

// FromRefusal is the inverse of Refusal.
func FromRefusal(m *undertonev1.Refusal) *rounds.Refusal {
	r := &rounds.Refusal{Reason: rounds.Reason(m.GetReason()), Detail: m.GetDetail(), Room: int(m.GetRoom())}
	for _, i := range m.GetMembers() {
		r.Counted = append(r.Counted, int(i))
	}
	return r
}
