package cli

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/undertone-fl/undertone/commandline"
)

// FuzzSettings: whatever is in a file of settings, it is read, or it is a mistake
// with a place.
func FuzzSettings(f *testing.F) {
	for _, text := range []string{"api: :7300\npeers: [a:1, b:2]", `{"data_dir": "d", "learner": true}`, "a: &x 1\nb: *x", "? [a]\n: b", "api: {x: 1}", "---\n---\n", "\x00", "peers: *p"} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "node.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readSettings(serverCommand().Flags(), path)
		var mistake *commandline.UsageError
		if err != nil && !errors.As(err, &mistake) {
			t.Errorf("%v is no mistake of the user's", err)
		}
	})
}
