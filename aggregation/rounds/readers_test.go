package rounds_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"pgregory.net/rapid"
)

// Values that a field may be changed to: of every type, at the ends of the ranges and
// beyond them, and some that readers of JSON differ on.
var strangeValues = []string{
	`0`, `-0`, `-1`, `1`, `1.0`, `1e3`, `9`, `7`, `8`, `64`, `65`, `9007199254740993`, `18446744073709551615`, `18446744073709551616`, `1e-400`, `1e400`, `0.5`,
	`31622400000`, `31622400001`, `16777216`, `16777217`,
	`"0"`, `"1"`, `"01"`, `" 1"`, `"+1"`, `"-1"`, `"1e3"`, `"1.0"`, `"0x1"`, `"1_0"`, `"null"`, `"true"`, `"\u0031"`,
	`"4503599627370496"`, `"4503599627370497"`, `"549755813887"`, `"549755813888"`, `"524287"`, `"524288"`, `"1152921504606846976"`, `"1152921504606846977"`,
	`"18446744073709551615"`, `"18446744073709551616"`,
	`null`, `true`, `[]`, `{}`, `[null]`, `[{}]`, `{"a":null}`, `""`, `"a"`, `"A"`, `"a-b"`, `"-"`, `"\ud800"`, "\"\xff\"",
	`"zero-out"`, `"Zero-Out"`, `"replace-one"`, `"distributed"`, `"central"`, `"local"`, `"Local"`,
}

// field is a name in an object, up to its value.
var field = regexp.MustCompile(`"([a-z_]+)":\s*`)

// mutate changes one field of a specification, which is JSON on a line.
func mutate(t *rapid.T, doc []byte) []byte {
	at := rapid.SampledFrom(field.FindAllSubmatchIndex(doc, -1)).Draw(t, "field")
	name := string(doc[at[2]:at[3]])
	d := json.NewDecoder(bytes.NewReader(doc[at[1]:]))
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		t.Skip(err) // it was changed before
	}
	head, tail := string(doc[:at[0]]), string(doc[at[1]+int(d.InputOffset()):])
	strange := rapid.SampledFrom(strangeValues).Draw(t, "value")
	switch rapid.IntRange(0, 7).Draw(t, "how") {
	case 0:
		return fmt.Appendf(nil, `%s"%s":%s,"%s":%s%s`, head, name, value, name, strange, tail)
	case 1:
		return fmt.Appendf(nil, `%s"%s":%s,"%s":%s%s`, head, name, value, strings.ToUpper(name[:1])+name[1:], strange, tail)
	case 2:
		return fmt.Appendf(nil, `%s"\u%04x%s":%s%s`, head, name[0], name[1:], value, tail)
	case 3:
		return append([]byte(head), bytes.TrimPrefix([]byte(tail), []byte(","))...)
	}
	return fmt.Appendf(nil, `%s"%s":%s%s`, head, name, strange, tail)
}

// read is a specification as an auditor's reader has it.
func read(t *rapid.T, doc []byte, job string, budget accounting.NanoRho) (*ledger.Specification, error) {
	var log ledger.Log
	signer, public := ledgerKey(t, 0)
	digest := ledger.Digest(sha256.Sum256(doc))
	log.Append(&ledger.Begun{Origin: origin, Key: public, Format: ledger.Format}, 0)
	log.Append(&ledger.JobCreated{Job: job, Specification: digest, State: ledger.Digest{1}, Budget: budget}, 0)
	root, err := log.Root(log.Size())
	if err != nil {
		t.Fatal(err)
	}
	signed, err := ledger.Checkpoint{Origin: origin, Size: log.Size(), Root: root}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ledger.Verify(&ledger.Bundle{
		Checkpoint: signed, Records: log.Records(), Specifications: map[ledger.Digest][]byte{digest: doc},
	}, public, ledger.Checkpoint{})
	if err != nil {
		return nil, err
	}
	return &h.Jobs[0].Specification, nil
}

// What servers take as a specification the ledger's own reader takes, and reads the same;
// what they refuse it refuses. The two share no code.
func TestTheLedgerReadsTheSameSpecifications(t *testing.T) {
	old, err := os.ReadFile("testdata/specs/films.json")
	if err != nil {
		t.Fatal(err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, old); err != nil {
		t.Fatal(err)
	}
	taken, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			doc := line.Bytes()
			for range rapid.IntRange(1, 2).Draw(t, "changes") {
				doc = mutate(t, doc)
			}
			spec, err := rounds.ParseSpec(doc)
			job, budget := "films", accounting.NanoRho(1)
			if err == nil {
				job, budget = spec.Job, spec.Budget
			}
			told, toldErr := read(t, doc, job, budget)
			if err != nil {
				// Verify reads before it compares, so that a job of another name is not
				// what is wrong.
				if toldErr == nil || !strings.Contains(toldErr.Error(), "its specification, ") {
					t.Fatalf("servers: %v; auditors: %v; of %s", err, toldErr, doc)
				}
				refused++
				continue
			}
			if toldErr != nil {
				t.Fatalf("servers take it; auditors: %v; of %s", toldErr, doc)
			}
			taken++
			a, errA := json.Marshal(spec)
			b, errB := json.Marshal(told)
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Fatalf("servers read %s, %v, and auditors %s, %v", a, errA, b, errB)
			}
		}
	})
	if taken < 50 || refused < 50 {
		t.Errorf("%d are taken, and %d refused", taken, refused)
	}
}
