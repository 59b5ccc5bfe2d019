// Package notary shows the cluster's ledger to those who do not trust the cluster: it
// signs checkpoints of what this node applied, which is what a leader committed, and
// proves that records are under them.
//
// Every node has the ledger's secret key and signs for itself: the log is the same
// sequence on all of them, so two nodes' checkpoints are of one history, whoever leads.
package notary

import (
	"errors"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Errors.
var (
	// ErrNoLedger says that the cluster has not begun its ledger yet.
	ErrNoLedger = errors.New("notary: the ledger has not begun")
	// ErrNoKey says that none of this node's key files is the ledger's key.
	ErrNoKey = errors.New("notary: this node has not the ledger's key")
)

// Node is the replica whose ledger is shown.
type Node interface {
	View(func(m *rounds.Machine, index uint64))
}

// Notary signs checkpoints. It may be used by many goroutines.
type Notary struct{}

// Open reads the secret keys in files (one note.NewSigner key a file, mode 0600) and
// returns the node's notary. The files are read again when the ledger's key is none of
// those known, as after a rotation.
func Open(node Node, files []string) (*Notary, error) { panic("notary: to be built") }

// Head is a signed checkpoint, and the ledger that it is of, to be read freely.
type Head struct {
	Note       []byte // signed
	Checkpoint ledger.Checkpoint
	Log        *ledger.Log
	Rotations  []*ledger.KeyRotated
	Key        string // public, that signed it
}

// Head returns the ledger as applied. Fails with ErrNoLedger or ErrNoKey.
func (n *Notary) Head() (*Head, error) { panic("notary: to be built") }

// Bundle returns the whole ledger with the specifications that it names.
func (n *Notary) Bundle() (*ledger.Bundle, error) { panic("notary: to be built") }
