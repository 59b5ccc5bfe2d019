package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"unicode"

	"github.com/undertone-fl/undertone/dp/ledger"
	"pgregory.net/rapid"
)

// grown returns logs by size, each with other records than the next longer one's end.
func grown(t *rapid.T, most int) *ledger.Log {
	size := rapid.IntRange(1, most).Draw(t, "size")
	l := new(ledger.Log)
	for i := range size {
		l.Append(&ledger.Restored{Era: i}, int64(i))
	}
	return l
}

func checkpointAt(t *rapid.T, l *ledger.Log, size int64) ledger.Checkpoint {
	root, err := l.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	if want := treeHash(l.Records()[:size]); root != ledger.Digest(want) {
		t.Fatalf("root of %d records is %v, want %v", size, root, want)
	}
	return ledger.Checkpoint{Origin: origin, Size: size, Root: root}
}

// flipped returns a proof with one bit flipped, nil if it has none.
func flipped(t *rapid.T, p ledger.Proof) ledger.Proof {
	if len(p) == 0 {
		return nil
	}
	p = slices.Clone(p)
	i := rapid.IntRange(0, len(p)*256-1).Draw(t, "bit")
	p[i/256][i/8%32] ^= 1 << (i % 8)
	return p
}

func TestEveryPrefixIsFollowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := grown(t, 200)
		old := rapid.Int64Range(0, l.Size()).Draw(t, "old")
		size := rapid.Int64Range(max(old, 1), l.Size()).Draw(t, "to")
		before, after := checkpointAt(t, l, old), checkpointAt(t, l, size)
		proof, err := l.Consistency(old, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := before.Follow(after, proof); err != nil {
			t.Fatal(err)
		}
		if bad := flipped(t, proof); bad != nil {
			if err := before.Follow(after, bad); !errors.Is(err, ledger.ErrFork) {
				t.Fatalf("with another proof: %v", err)
			}
		}
		if old > 0 && old < size {
			if err := before.Follow(after, append(proof, ledger.Digest{})); !errors.Is(err, ledger.ErrFork) {
				t.Fatalf("with a longer proof: %v", err)
			}
			before.Root[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1
			if err := before.Follow(after, proof); !errors.Is(err, ledger.ErrFork) {
				t.Fatalf("after another history: %v", err)
			}
			if err := after.Follow(before, proof); !errors.Is(err, ledger.ErrTruncated) {
				t.Fatalf("backwards: %v", err)
			}
		}
	})
}

func TestEveryRecordIsIncluded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := grown(t, 200)
		size := rapid.Int64Range(1, l.Size()).Draw(t, "of")
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		c := checkpointAt(t, l, size)
		proof, err := l.Inclusion(index, size)
		if err != nil {
			t.Fatal(err)
		}
		record := l.Records()[index]
		if err := c.Includes(record, index, proof); err != nil {
			t.Fatal(err)
		}
		other := bytes.Clone(record)
		other[rapid.IntRange(0, len(other)-1).Draw(t, "byte")] ^= 1
		at := rapid.Int64Range(-1, size).Draw(t, "elsewhere")
		for what, err := range map[string]error{
			"another record": c.Includes(other, index, proof),
			"a longer proof": c.Includes(record, index, append(slices.Clone(proof), ledger.Digest{})),
		} {
			if !errors.Is(err, ledger.ErrNotIncluded) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if err := c.Includes(record, at, proof); at != index && !errors.Is(err, ledger.ErrNotIncluded) {
			t.Fatalf("at %d in place of %d: %v", at, index, err)
		}
		if bad := flipped(t, proof); bad != nil {
			if err := c.Includes(record, index, bad); !errors.Is(err, ledger.ErrNotIncluded) {
				t.Fatalf("with another proof: %v", err)
			}
		}
	})
}

// A changed bit anywhere in a bundle is caught, whatever it means.
func TestEveryBitCounts(t *testing.T) {
	a := ordinary(t)
	genuine := a.bundle(t)
	rapid.Check(t, func(t *rapid.T) {
		b := &ledger.Bundle{Checkpoint: genuine.Checkpoint, Records: slices.Clone(genuine.Records), Specifications: make(map[ledger.Digest][]byte)}
		digests := make([]ledger.Digest, 0, len(genuine.Specifications))
		for d, raw := range genuine.Specifications {
			b.Specifications[d] = raw
			digests = append(digests, d)
		}
		slices.SortFunc(digests, func(a, b ledger.Digest) int { return bytes.Compare(a[:], b[:]) })
		flip := func(p []byte) []byte {
			p = bytes.Clone(p)
			i := rapid.IntRange(0, 8*len(p)-1).Draw(t, "bit")
			p[i/8] ^= 1 << (i % 8)
			return p
		}
		switch rapid.IntRange(0, 5).Draw(t, "where") {
		case 0:
			b.Checkpoint = flip(b.Checkpoint)
		case 1:
			d := rapid.SampledFrom(digests).Draw(t, "specification")
			b.Specifications[d] = flip(b.Specifications[d])
		default:
			i := rapid.IntRange(0, len(b.Records)-1).Draw(t, "record")
			b.Records[i] = flip(b.Records[i])
		}
		var fault *ledger.Fault
		if _, err := ledger.Verify(b, a.first, ledger.Checkpoint{}); !errors.As(err, &fault) {
			t.Fatalf("not caught: %v", err)
		}
	})
}

// Clip and Restore are the log that they are of.
func TestClipsAndRestoredLogs(t *testing.T) {
	a := ordinary(t)
	clip, size := a.log.Clip(), a.log.Size()
	before, err := a.log.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	a.append(&ledger.Restored{Era: 7})
	restored, err := ledger.Restore(clip.Records())
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*ledger.Log{"clip": clip, "restored": restored} {
		if root, err := l.Root(size); err != nil || root != before || l.Size() != size {
			t.Errorf("%s: root %v of %d, %v; want %v of %d", name, root, l.Size(), err, before, size)
		}
		if _, err := l.Inclusion(0, size+1); err == nil {
			t.Errorf("%s: proves inclusion among more records than there are", name)
		}
		if _, err := l.Consistency(1, size+1); err == nil {
			t.Errorf("%s: proves consistency with more records than there are", name)
		}
		// Times go on from the last record's.
		_, record := l.Append(&ledger.Restored{Era: 1}, 0)
		if e, err := ledger.Decode(record); err != nil || e.(*ledger.Restored).Time != a.now-1000 {
			t.Errorf("%s: %s, %v", name, record, err)
		}
	}
	if _, err := ledger.Restore([][]byte{a.log.Records()[0], []byte("{}")}); !errors.Is(err, ledger.ErrEntry) {
		t.Errorf("restored from no record: %v", err)
	}
}

// FollowKeys goes from any key of a chain to its end.
func TestKeysAreFollowed(t *testing.T) {
	a := newAuthor(t)
	keys := []string{a.first}
	var rotations []*ledger.KeyRotated
	for number := byte(2); number < 6; number++ {
		a.rotate(t, number)
		keys = append(keys, a.public)
		e, err := ledger.Decode(a.log.Records()[a.log.Size()-1])
		if err != nil {
			t.Fatal(err)
		}
		rotations = append(rotations, e.(*ledger.KeyRotated))
	}
	b := a.bundle(t)
	for i, trusted := range keys {
		key, err := ledger.FollowKeys(trusted+"\n", rotations)
		if err != nil {
			t.Fatalf("from key %d: %v", i, err)
		}
		if _, err := ledger.OpenCheckpoint(b.Checkpoint, key); err != nil {
			t.Errorf("from key %d: %v", i, err)
		}
		h, err := ledger.Verify(b, trusted, ledger.Checkpoint{})
		if err != nil || h.Key != a.public || h.Rotations != 4 {
			t.Errorf("from key %d: %+v, %v", i, h, err)
		}
	}
	// To a key that signed before nobody is led, whichever key is trusted: by what it once
	// endorsed, the log would go round for ever.
	a.rotate(t, 1)
	e, err := ledger.Decode(a.log.Records()[a.log.Size()-1])
	if err != nil {
		t.Fatal(err)
	}
	back := append(slices.Clone(rotations), e.(*ledger.KeyRotated))
	round := append(slices.Clone(back), rotations[0])
	for i, trusted := range keys {
		_, err := ledger.FollowKeys(trusted, round)
		if !errors.Is(err, ledger.ErrSignature) {
			t.Errorf("round, from key %d: %v", i, err)
		}
		if _, err = ledger.FollowKeys(trusted, back, keys[:i]...); !errors.Is(err, ledger.ErrSignature) {
			t.Errorf("back, from key %d: %v", i, err)
		}
	}
	// Without the second rotation, the third leads nowhere.
	if _, err := ledger.FollowKeys(keys[0], slices.Delete(slices.Clone(rotations), 1, 2)); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("a gap: %v", err)
	}
	if _, err := ledger.FollowKeys("cluster.example+00000000+AAAA", rotations); err == nil || errors.Is(err, ledger.ErrSignature) {
		t.Errorf("no key: %v", err)
	}
	if _, err := ledger.Verify(b, "no key", ledger.Checkpoint{}); err == nil || errors.As(err, new(*ledger.Fault)) {
		t.Errorf("no key: %v", err)
	}
}

// Every kind of entry is written in one way, and read back.
func TestEntriesAreReadBack(t *testing.T) {
	for i, record := range ordinary(t).log.Records() {
		e, err := ledger.Decode(record)
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if !bytes.Equal(ledger.Encode(e), record) {
			t.Errorf("record %d: %s", i, record)
		}
	}
	for _, bad := range []string{
		``, `{}`, `null`, `{"record":"restored"}`,
		`{"record":"restored","time_ms":1,"era":1} `,
		`{"record":"restored","time_ms":1,"era":1,"era":1}`,
		`{"record":"restored","era":1,"time_ms":1}`,
		`{"record":"restored","time_ms":1,"Era":1}`,
		`{"record":"restored","time_ms":1,"era":1.0}`,
		`{"record":"restored","time_ms":"1","era":1}`,
		`{"record":"job","time_ms":1,"job":"a","specification":"00","state":"","budget_nano_rho":"1"}`,
		"{\"record\":\"failure\",\"time_ms\":1,\"job\":\"a\",\"round\":1,\"attempt\":1,\"members\":0,\"why\":\"\xff\"}",
	} {
		if e, err := ledger.Decode([]byte(bad)); !errors.Is(err, ledger.ErrEntry) {
			t.Errorf("%s: %+v, %v", bad, e, err)
		}
	}
}

func ExampleCheckpoint_Text() {
	fmt.Print(ledger.Checkpoint{Origin: "cluster.example", Size: 0}.Text())
	// Output:
	// cluster.example
	// 0
	// AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
}

// A text of a record shows what it is: controls, separators of lines and format characters
// are none of it. What Unicode 15 has of them was refused from the first record on.
func TestTextsAreOneLine(t *testing.T) {
	for _, fine := range []string{"why", "Überlauf, 予算, ميزانية", "a\u00a0b", ""} {
		if got := ledger.OneLine(fine); got != fine {
			t.Errorf("%q becomes %q", fine, got)
		}
	}
	if got := ledger.OneLine("a\x1b\u0085\u2028\u202eb\u200b\ufeff\U000e0041c"); got != "a????b???c" {
		t.Errorf("%q", got)
	}
	if unicode.Version != "15.0.0" {
		t.Skip("Unicode " + unicode.Version)
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		hidden := unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
		if shown := ledger.OneLine(string(r)) == string(r); shown == hidden {
			t.Errorf("%U is shown: %v", r, shown)
		}
	}
	if _, err := ledger.ParseKey("a\u202eb+00000000+AAAA"); err == nil {
		t.Error("a key with a name that turns around")
	}
}

// A checkpoint that was kept is read whatever key it was signed with; what is none is not.
func TestKeptCheckpoints(t *testing.T) {
	secret, _, err := ledger.NewKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, _, err := ledger.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	want := ledger.Checkpoint{Origin: origin, Size: 7, Root: ledger.Digest{1}}
	signed, err := want.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ledger.ReadCheckpoint(signed); c != want || err != nil {
		t.Errorf("%v, %v", c, err)
	}
	for _, text := range []string{"", want.Text(), string(signed[:len(signed)-1]), "no checkpoint\n" + string(signed)} {
		if _, err := ledger.ReadCheckpoint([]byte(text)); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A secret key gives the public half that it was made with, and nothing else is one.
func TestSecretKeys(t *testing.T) {
	secret, public, err := ledger.NewKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, half, err := ledger.ParseSecret(" " + secret + "\n")
	if err != nil || half != public || signer.Name() != origin {
		t.Errorf("%s, %v, want %s", half, err, public)
	}
	for _, text := range []string{"", public, secret[:len(secret)-4], "PRIVATE+KEY+" + public} {
		if _, _, err := ledger.ParseSecret(text); err == nil {
			t.Errorf("%q is a secret key", text)
		}
	}
	for _, name := range []string{"", "two words", "a+b", "a\nb"} {
		if _, _, err := ledger.NewKey(name); err == nil {
			t.Errorf("%q is the name of a log", name)
		}
	}
}
