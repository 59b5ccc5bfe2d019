package cli

import (
	"errors"
	"io"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/dp/ledger"
)

// TestKeptThroughRotation: what an auditor saw is remembered when the auditor takes up
// the key that a rotation published, and also where it is that key's owner who then
// shows another history.
func TestKeptThroughRotation(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	const origin = "cluster.example"
	key := func() (note.Signer, string) {
		secret, public, err := ledger.NewKey(origin)
		if err != nil {
			t.Fatal(err)
		}
		s, err := note.NewSigner(secret)
		if err != nil {
			t.Fatal(err)
		}
		return s, public
	}
	one, public1 := key()
	two, public2 := key()
	endorsement, err := ledger.Endorse(one, public2)
	if err != nil {
		t.Fatal(err)
	}
	bundle := func(signer note.Signer, entries ...ledger.Entry) *ledger.Bundle {
		var l ledger.Log
		for _, e := range entries {
			l.Append(e, 1)
		}
		root, err := l.Root(l.Size())
		if err != nil {
			t.Fatal(err)
		}
		signed, err := ledger.Checkpoint{Origin: origin, Size: l.Size(), Root: root}.Sign(signer)
		if err != nil {
			t.Fatal(err)
		}
		return &ledger.Bundle{Checkpoint: signed, Records: l.Records(), Specifications: map[ledger.Digest][]byte{}}
	}
	begun := func(key string) ledger.Entry { return &ledger.Begun{Origin: origin, Key: key, Format: ledger.Format} }
	restored := func(era int) ledger.Entry { return &ledger.Restored{Era: era} }
	rotated := &ledger.KeyRotated{Key: public2, Endorsement: endorsement}
	cmd := new(cobra.Command)
	cmd.SetErr(io.Discard)
	verify := func(key string, b *ledger.Bundle) (*verified, error) {
		a := auditor{key: key}
		return a.verify(cmd, new(connection), "ledger.zip", b)
	}

	if _, err := verify(public1, bundle(one, begun(public1), restored(1), restored(2))); err != nil {
		t.Fatal(err)
	}
	// Of the whole chain one checkpoint is kept: the new key finds the old one's.
	if _, err := verify(public2, bundle(two, begun(public1), restored(1), rotated)); !errors.Is(err, ledger.ErrFork) {
		t.Errorf("the new key takes another history: %v", err)
	}
	v, err := verify(public1, bundle(two, begun(public1), restored(1), restored(2), rotated))
	if err != nil || v.seen.Size != 3 {
		t.Fatalf("extends %d records: %v", v.seen.Size, err)
	}
	// And the old one's is kept for the new key, should it forget the old one.
	if _, err := verify(public2, bundle(two, begun(public2), restored(1), restored(2), restored(3))); !errors.Is(err, ledger.ErrFork) {
		t.Errorf("a ledger that begins with the new key: %v", err)
	}
	// A ledger of the same name that has to do with none of this is another cluster's, and
	// is said to be compared with nothing.
	three, public3 := key()
	v, err = verify(public3, bundle(three, begun(public3)))
	if err != nil || v.seen.Size != 0 || len(v.strangers) != 2 {
		t.Errorf("another cluster: %v, compared with %d records, not with %q", err, v.seen.Size, v.strangers)
	}
}
