package ledger_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/dp/ledger"
)

func written(t testing.TB, b *ledger.Bundle) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := ledger.WriteBundle(&file, b); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func read(file []byte) (*ledger.Bundle, error) {
	return ledger.ReadBundle(bytes.NewReader(file), int64(len(file)))
}

func sameBundle(a, b *ledger.Bundle) bool {
	return bytes.Equal(a.Checkpoint, b.Checkpoint) &&
		slices.EqualFunc(a.Records, b.Records, bytes.Equal) &&
		maps.EqualFunc(a.Specifications, b.Specifications, bytes.Equal)
}

func TestBundleIsReadBack(t *testing.T) {
	for name, b := range map[string]*ledger.Bundle{
		"ordinary": ordinary(t).bundle(t),
		"empty":    new(ledger.Bundle),
	} {
		file := written(t, b)
		if again := written(t, b); !bytes.Equal(file, again) {
			t.Errorf("%s: written twice it is two files", name)
		}
		back, err := read(file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !sameBundle(b, back) {
			t.Errorf("%s: read back it is another one", name)
		}
	}
}

// member of a file, for those that WriteBundle would not write.
type member struct {
	name    string
	content string
}

func zipOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var file bytes.Buffer
	z := zip.NewWriter(&file)
	for _, m := range members {
		w, err := z.Create(m.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestStrangeBundlesAreRefused(t *testing.T) {
	checkpoint, records := member{"checkpoint", "c"}, member{"records.jsonl", "{}\n"}
	digest := strings.Repeat("ab", 32)
	good := zipOf(t, checkpoint, records, member{"specifications/" + digest + ".json", "{}"})
	if _, err := read(good); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(good)
	damaged[bytes.Index(damaged, []byte("checkpoint"))+len("checkpoint")] ^= 0x40
	for _, c := range []struct {
		name  string
		file  []byte
		wants string
	}{
		{"no zip", []byte("undertone"), "zip"},
		{"nothing", nil, "zip"},
		{"cut off", good[:len(good)-10], "zip"},
		{"damaged", damaged, "checkpoint"},
		{"no checkpoint", zipOf(t, records), "checkpoint is missing"},
		{"no records", zipOf(t, checkpoint), "records.jsonl is missing"},
		{"records twice", zipOf(t, checkpoint, records, records), `"records.jsonl" is there twice`},
		{"a member more", zipOf(t, checkpoint, records, member{"README", "x"}), `"README" does not belong`},
		{"a folder", zipOf(t, checkpoint, records, member{"specifications/", ""}), `"specifications/" does not belong`},
		{"a path", zipOf(t, checkpoint, records, member{"specifications/../../" + digest + ".json", "x"}), "does not belong"},
		{"a digest in capitals", zipOf(t, checkpoint, records, member{"specifications/" + strings.ToUpper(digest) + ".json", "x"}), "does not belong"},
		{"half a digest", zipOf(t, checkpoint, records, member{"specifications/" + digest[:32] + ".json", "x"}), "does not belong"},
		{"a line without its end", zipOf(t, checkpoint, member{"records.jsonl", "{}\n{}"}), "records.jsonl breaks off"},
		{"a checkpoint too large", zipOf(t, member{"checkpoint", strings.Repeat("c", 1<<17)}, records), "checkpoint has 131072 bytes"},
		{"a specification too large", zipOf(t, checkpoint, records, member{"specifications/" + digest + ".json", strings.Repeat(" ", 1<<19)}), "has 524288 bytes, and may have"},
	} {
		b, err := read(c.file)
		if !errors.Is(err, ledger.ErrBundle) || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%s: %v, %v; want %q", c.name, b, err, c.wants)
		}
	}
}

// A file that says it is small and unpacks to more is given up when it has what it said.
func TestBundleDoesNotUnpackMoreThanItSays(t *testing.T) {
	file := zipOf(t, member{"checkpoint", strings.Repeat("c", 1<<20)}, member{"records.jsonl", ""})
	// The directory's entry has the size at an offset of 24.
	entry := bytes.Index(file, []byte("PK\x01\x02"))
	copy(file[entry+24:], []byte{16, 0, 0, 0})
	if b, err := read(file); !errors.Is(err, ledger.ErrBundle) {
		t.Errorf("%v, %v", b, err)
	}
}
