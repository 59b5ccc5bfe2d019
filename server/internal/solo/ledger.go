package solo

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// The name of a node's ledger, and the key pair that it begins with. The secret is
// public: it is for tests alone.
const (
	Origin    = "solo.example/ledger"
	PublicKey = "solo.example/ledger+105ffe9e+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
	SecretKey = "PRIVATE+KEY+solo.example/ledger+105ffe9e+AQcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH"
)

// epoch is the time of the log's beginning: a second passes with every command,
// unless that brings its own (rounds.Dated).
const epoch = 1_767_225_600_000

// BeginLedger begins the ledger. Later commands are recorded in it with times.
func (n *Node) BeginLedger(t testing.TB) {
	t.Helper()
	n.Do(t, rounds.BeginLedger{Origin: Origin, Key: PublicKey})
}

// Signer signs checkpoints of the ledger.
func Signer(t testing.TB) note.Signer {
	t.Helper()
	s, err := note.NewSigner(SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// KeyFile writes the secret key as a node has it, and returns where.
func KeyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.key")
	if err := os.WriteFile(path, []byte(SecretKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
