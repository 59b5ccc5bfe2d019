package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/ledger/report"
	"github.com/undertone-fl/undertone/server/notary"
)

// envLedgerKey is the public key of a ledger, or its file.
const envLedgerKey = "UNDERTONE_LEDGER_KEY"

// auditor is what somebody who verifies a ledger has of it already: its public key, and
// the last checkpoint that was verified. Neither is ever taken from what is verified.
type auditor struct {
	key, seen string
	older     bool // what is verified was fetched some time ago
}

// noneSeen as --seen compares with no checkpoint, and keeps none.
const noneSeen = "none"

func (a *auditor) flags() *pflag.FlagSet {
	flags := commandline.Part("What is known of the ledger")
	flags.StringVar(&a.key, "key", "", "its public key, as `text or a file` (default: $"+envLedgerKey+", or ledger.pub in the identity's directory)")
	flags.StringVar(&a.seen, "seen", "", "`file` of the last checkpoint that was verified, which the ledger must extend, and which is then replaced; none is none (default: one for each of the ledger's keys, in the user's configuration)")
	return flags
}

func (a *auditor) complete(cmd *cobra.Command) {
	complete(cmd, "key", files("pub"))
	complete(cmd, "seen", files())
}

// trusted returns the public key that the auditor trusts, and where it is from.
func (a *auditor) trusted(c *connection) (key, from string, err error) {
	for _, given := range []struct{ text, place string }{{a.key, "--key"}, {os.Getenv(envLedgerKey), envLedgerKey}} {
		if given.text == "" {
			continue
		}
		key, from, err := publicKey(given.text)
		if err != nil {
			return "", "", usagef("%s: %w", given.place, err)
		}
		if from == "" {
			from = given.place
		}
		return key, from, nil
	}
	dir, _ := c.directory()
	path := filepath.Join(dir, notary.PublicFile)
	if _, err := os.Stat(path); dir != "" && !errors.Is(err, fs.ErrNotExist) { // or it may not be read
		key, from, err := publicKey(path)
		if err != nil {
			return "", "", &commandline.UsageError{Err: err}
		}
		return key, from, nil
	}
	return "", "", errNoKey
}

// errNoKey says that the auditor has named no key, and has none where it is looked for.
var errNoKey = flagf("key", "is missing: the ledger's public key, as text or a file. Have it from whoever you trust (undertone ca issue gives it along, as ledger.pub), and never from the ledger itself")

// publicKey reads a public key, as text or out of a file, whose path it returns.
func publicKey(text string) (key, path string, err error) {
	if _, err := ledger.ParseKey(text); err == nil {
		return strings.TrimSpace(text), "", nil
	}
	content, err := os.ReadFile(text)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(text, "+"):
		return "", "", fmt.Errorf("%.80q is no public key of a ledger", text)
	case err != nil:
		return "", "", pathProblem(err)
	}
	key = strings.TrimSpace(string(content))
	if key == "" {
		return "", "", fmt.Errorf("%s: is empty, and no public key of a ledger: have the key anew from whoever you trust", text)
	}
	if strings.HasPrefix(key, "PRIVATE+KEY+") {
		return "", "", fmt.Errorf("%s: it is the secret key (undertone audit key publish %s prints the public one)", text, text)
	}
	if _, err := ledger.ParseKey(key); err != nil {
		return "", "", fmt.Errorf("%s: no public key of a ledger", text)
	}
	return key, text, nil
}

// verified is a ledger that was.
type verified struct {
	history *ledger.History
	report  *report.Report
	keyFrom string // where the trusted key is from

	seen   kept   // that it extends; zero: there was none
	keptAt string // the file that has its checkpoint now; empty: none
	// strangers are files with checkpoints of a ledger of this name, under keys that
	// have nothing to do with this one.
	strangers []string

	took time.Duration
}

// verify verifies a bundle, and keeps its checkpoint.
func (a *auditor) verify(cmd *cobra.Command, c *connection, name string, b *ledger.Bundle) (*verified, error) {
	trusted, from, err := a.trusted(c)
	if err != nil {
		return nil, err
	}
	key, err := ledger.ParseKey(trusted)
	if err != nil {
		return nil, flagf("key", "%w", err)
	}
	m, err := a.recall(key, b.Records)
	if err != nil {
		return nil, err
	}
	v := &verified{keyFrom: from, seen: m.latest(), keptAt: m.place(), strangers: m.strangers}
	const many = 50_000
	if len(b.Records) > many && isTerminal(cmd.ErrOrStderr()) {
		fmt.Fprintf(cmd.ErrOrStderr(), "verifying %d records ...\r", len(b.Records))
		defer fmt.Fprint(cmd.ErrOrStderr(), "\x1b[K")
	}
	start := time.Now()
	if v.history, err = ledger.Verify(b, trusted, v.seen.Checkpoint); err == nil {
		err = m.check(b.Records)
	}
	if fault := (*ledger.Fault)(nil); a.older && errors.As(err, &fault) && errors.Is(err, ledger.ErrTruncated) {
		fault.Problem = fmt.Sprintf("this ledger is shorter than the one that was verified on %s (%s): an older download, or records were taken back: fetch again, or --seen %s",
			v.seen.at.UTC().Format(time.DateOnly), plural(v.seen.Size, "record"), noneSeen)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	v.took = time.Since(start)
	if v.report, err = report.New(v.history, b.Checkpoint); err != nil {
		return nil, err
	}
	v.report.MadeAt(time.Now(), v.history)
	if err := m.keep(v.history.Checkpoint, b.Checkpoint); err != nil {
		return nil, fmt.Errorf("verified, but the checkpoint cannot be kept (--seen names another file, or none): %w", err)
	}
	return v, nil
}

// verifyFile is verify of a file, which may be older than what was seen before.
func (a auditor) verifyFile(cmd *cobra.Command, c *connection, name string, b *ledger.Bundle) (*verified, error) {
	a.older = true
	return a.verify(cmd, c, name, b)
}
