package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/replication/encoding"
	"github.com/undertone-fl/undertone/server/replication/storage"
)

// Backup writes a snapshot of everything committed before the call, but for what
// open attempts have collected (rounds.Backup).
func (n *Node) Backup(ctx context.Context, w io.Writer) error {
	if _, err := n.Barrier(ctx); err != nil {
		return err
	}
	state := n.replica.state()
	var err error
	if state.Snapshot, err = rounds.Backup(state.Snapshot); err != nil {
		return err
	}
	return encoding.WriteSnapshot(w, state)
}

// eraEntries is how far above its backup a restored log begins: above every entry
// that the old cluster appended after it, as devices take no answer from before an
// entry that they have seen the effect of. A log grows by that much in three years
// of ten thousand entries a second.
const eraEntries = 1 << 40

// RestoreBackup makes a data directory, which must be empty, out of a backup:
// that of the first node of a new cluster with the same jobs, as rounds.Anew leaves
// them: under the backup's ledger, or under another. Fails with rounds.ErrSameOrigin if
// that is none.
func RestoreBackup(dir string, name, address string, backup io.Reader, another *rounds.BeginLedger) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("address: %q is not host:port", address)
	}
	switch old, err := os.ReadDir(dir); {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case len(old) > 0:
		return fmt.Errorf("%s: not empty", dir)
	}
	// Read in full before anything is written: a backup may be of any age.
	state, err := encoding.ReadSnapshot(backup)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if state.Snapshot, err = rounds.Anew(state.Snapshot, time.Now().UnixMilli(), another); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	state.Index += eraEntries
	return offline(dir, storage.Owner{Node: name}, func(d *storage.Directory, _ *slog.Logger) error {
		// A term above zero, so that it is older than any that comes.
		const term = 1
		if err := d.Log.SetUint64([]byte("CurrentTerm"), term); err != nil {
			return err
		}
		servers := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(name), Address: raft.ServerAddress(address)}}}
		_, addresses := raft.NewInmemTransport("")
		sink, err := d.Snapshots.Create(raft.SnapshotVersionMax, state.Index, term, servers, 1, addresses)
		if err != nil {
			return err
		}
		return stateSnapshot{state}.Persist(sink)
	})
}

// Recover rewrites the membership in the data directory of a stopped node, after
// a majority was lost: the members are the ones given, by name and address. What
// the lost nodes alone had acknowledged is gone.
func Recover(dir string, members map[string]string) error {
	var servers raft.Configuration
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if _, _, err := net.SplitHostPort(members[name]); err != nil {
			return fmt.Errorf("members: %s: %q is not host:port", name, members[name])
		}
		servers.Servers = append(servers.Servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(members[name])})
	}
	return offline(dir, storage.Owner{}, func(d *storage.Directory, log *slog.Logger) error {
		name := d.Owner().Node
		if _, ok := members[name]; !ok {
			return fmt.Errorf("members: %q, whose directory it is, is not among them", name)
		}
		if why, err := d.Diverged(); err != nil || why != "" {
			return errors.Join(err, fmt.Errorf("%s: %w", dir, ErrDiverged))
		}
		var failed error
		r := newReplica(func(err error) { failed = errors.Join(failed, err) })
		_, addresses := raft.NewInmemTransport("")
		logger := newRaftLogger(log)
		err := raft.RecoverCluster(raftConfig(name, defaultHeartbeat, logger), r, d.Log, d.Log, d.Snapshots, addresses, servers)
		if failed != nil {
			err = failed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		return nil
	})
}

// offline works on the data directory of a node that does not run.
func offline(dir string, owner storage.Owner, f func(*storage.Directory, *slog.Logger) error) error {
	log := slog.New(slog.DiscardHandler)
	d, err := storage.Open(dir, owner, storage.Options{
		Logger: newRaftLogger(log),
		Fatal:  func(error) {}, // the error is returned as well
	})
	if err != nil {
		return err
	}
	return errors.Join(f(d, log), d.Close())
}
