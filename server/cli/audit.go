package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/ledger/report"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/pages"
)

// defaultBundle is the file of a ledger that was fetched.
const defaultBundle = "ledger.zip"

// auditCommand is the group, with the measurements that others add to it.
func auditCommand(measurements []*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify what a cluster spent, from its ledger, and measure its noise",
		Long: `Audit is for those who need not trust the operator. A cluster keeps a ledger of
everything that concerns the privacy budget: jobs, charges, releases, failures. Fetch
it, and verify it where you like, with the key that you hold: every hash, signature
and charge is computed anew. The last checkpoint that was verified is kept, so that
records can neither be changed nor taken back afterwards without being found out.`,
		Example: `  undertone audit fetch
  undertone audit verify ledger.zip --key ledger.pub
  undertone audit report ledger.zip --key ledger.pub
  undertone audit report`,
	}
	cmd.AddCommand(auditFetchCommand(), auditVerifyCommand(), auditReportCommand(), auditExportCommand(), auditKeyCommand())
	cmd.AddCommand(measurements...)
	cmd.AddCommand(auditRecordCommand(), auditLinkCommand())
	return cmd
}

// books is a ledger's service.
type books = undertonev1grpc.LedgerServiceClient

// keep makes a call to a ledger's service.
func (c *connection) keep(cmd *cobra.Command, again repeat, f func(context.Context, books) error) error {
	return c.on(cmd, again, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, undertonev1grpc.NewLedgerServiceClient(conn))
	})
}

// addAuditTo gives a command, after its own flags and others, those of a connection as
// an auditor has it.
func (c *connection) addAuditTo(cmd *cobra.Command, a *auditor) {
	if a == nil {
		commandline.AddParts(cmd, c.part(false))
	} else {
		commandline.AddParts(cmd, a.flags(), c.part(false))
		a.complete(cmd)
	}
	c.completeServer(cmd)
}

// downloadTime is how long a ledger may take to arrive, unless --timeout says otherwise.
const downloadTime = 15 * time.Minute

// download writes the ledger's bundle, as it is now, to w. Where a server breaks off,
// empty undoes what was written, and the next one begins.
func (c *connection) download(cmd *cobra.Command, w io.Writer, empty func() error) error {
	if !cmd.Flags().Changed("timeout") {
		c.timeout = downloadTime
	}
	shown := arrivals{w: cmd.ErrOrStderr()}
	defer shown.end()
	return c.keep(cmd, repeated, func(ctx context.Context, b books) error {
		if err := empty(); err != nil {
			return err
		}
		shown.n = 0
		stream, err := b.DownloadLedger(ctx, &undertonev1.DownloadLedgerRequest{})
		if err != nil {
			return err
		}
		return receive(io.MultiWriter(w, &shown), stream)
	})
}

// receive writes the pieces of a stream to w until its end.
func receive[P interface{ GetChunk() []byte }](w io.Writer, stream interface{ Recv() (P, error) }) error {
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(piece.GetChunk()); err != nil {
			return err
		}
	}
}

// arrivals shows on a terminal how much has arrived.
type arrivals struct {
	w     io.Writer
	n     uint64
	shown time.Time
}

func (a *arrivals) Write(b []byte) (int, error) {
	a.n += uint64(len(b))
	if isTerminal(a.w) && time.Since(a.shown) > 100*time.Millisecond {
		a.shown = time.Now()
		fmt.Fprintf(a.w, "\r%s arrived\x1b[K", size(a.n))
	}
	return len(b), nil
}

// end clears the line.
func (a *arrivals) end() {
	if !a.shown.IsZero() {
		fmt.Fprint(a.w, "\r\x1b[K")
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func auditFetchCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "fetch [FILE]",
		Short: "Download the ledger, to be verified anywhere",
		Long: `Fetch writes the whole ledger, with its signed checkpoint and the specifications of
its jobs, into a file: ` + defaultBundle + `, unless another one is named; - is stdout. A ledger that
is there already is replaced, once the new one has arrived; anything else is not. What
is in the file is public to auditors and operators, and has nothing of any user.`,
		Example: `  undertone audit fetch
  undertone audit fetch movies-$(date +%F).zip`,
		Args:              optional("FILE"),
		ValidArgsFunction: completeBundle,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := defaultBundle
			if len(args) > 0 {
				path = args[0]
			}
			return fetch(cmd, &c, path)
		},
	}
	c.addAuditTo(cmd, nil)
	return cmd
}

func fetch(cmd *cobra.Command, c *connection, path string) error {
	if path == dash {
		text, _, err := c.downloaded(cmd)
		if err == nil {
			_, err = cmd.OutOrStdout().Write(text)
		}
		return err
	}
	if err := checkReplaceable(cmd, path); err != nil {
		return err
	}
	var b *ledger.Bundle
	var n int64
	err := draftOf(path, 0o644, func(d draft) (err error) {
		if err := c.download(cmd, d, d.empty); err != nil {
			return err
		}
		if n, err = d.Seek(0, io.SeekEnd); err != nil {
			return problemAt(path, err)
		}
		b, err = arrived(d, n)
		return err
	})
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(cmd.OutOrStdout(), map[string]any{"file": path, "bytes": n, "records": len(b.Records)})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s; not verified yet: undertone audit verify %s\n",
		path, plural(len(b.Records), "record"), size(uint64(n)), path)
	return err
}

// checkReplaceable refuses to have a ledger written over anything but another one.
func checkReplaceable(cmd *cobra.Command, path string) error {
	if path == "" {
		return usagef("FILE is empty: %s", cmd.UseLine())
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return problemAt(path, err)
	}
	if info.Mode().IsRegular() {
		if _, err := readBundle(cmd, path); err == nil {
			return nil
		}
	}
	return usagef("%s: there is something else already, and nothing but a ledger is overwritten", path)
}

// isZip tells a bundle from what cannot be one by its first bytes.
func isZip(start []byte) error {
	if !bytes.HasPrefix(start, []byte("PK\x03\x04")) {
		return ledger.ErrBundle
	}
	return nil
}

// maxBundle bounds a bundle that has to be held in memory, of ten million records or so.
const maxBundle = 1 << 30

// readBundle reads a ledger's file, or stdin. Fails with a *commandline.UsageError.
func readBundle(cmd *cobra.Command, path string) (*ledger.Bundle, error) {
	if path == "" {
		return nil, usagef("FILE is empty: %s", cmd.UseLine())
	}
	var content interface {
		io.ReaderAt
		Size() int64
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && path != dash {
		f, err := os.Open(path)
		if err != nil {
			return nil, problemAt(path, err)
		}
		defer f.Close()
		content = io.NewSectionReader(f, 0, info.Size())
	} else { // a pipe has to be read as a whole, since a bundle's table of contents is its end
		text, err := readUpTo(cmd, path, maxBundle, isZip)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	b, err := ledger.ReadBundle(content, content.Size())
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	return b, nil
}

// downloaded is the ledger's bundle as it is now, and its bytes.
func (c *connection) downloaded(cmd *cobra.Command) ([]byte, *ledger.Bundle, error) {
	var text bytes.Buffer
	if err := c.download(cmd, &text, func() error { text.Reset(); return nil }); err != nil {
		return nil, nil, err
	}
	b, err := arrived(bytes.NewReader(text.Bytes()), int64(text.Len()))
	return text.Bytes(), b, err
}

func arrived(content io.ReaderAt, size int64) (*ledger.Bundle, error) {
	b, err := ledger.ReadBundle(content, size)
	if err != nil {
		return nil, fmt.Errorf("what arrived is no ledger: %w", err)
	}
	return b, nil
}

// source is where a command has a ledger from: a file, or a cluster.
type source struct {
	auditor
	connection
}

// verified reads the ledger of a file or, without one, of a cluster, and verifies it.
func (s *source) verified(cmd *cobra.Command, args []string) (*verified, error) {
	if len(args) > 0 {
		b, err := readBundle(cmd, args[0])
		if err != nil {
			return nil, err
		}
		return s.verifyFile(cmd, &s.connection, args[0], b)
	}
	if _, _, err := s.trusted(&s.connection); err != nil {
		return nil, err // before anything is downloaded
	}
	_, b, err := s.downloaded(cmd)
	if err != nil {
		return nil, err
	}
	return s.verify(cmd, &s.connection, "the cluster's ledger", b)
}

func (s *source) addTo(cmd *cobra.Command) {
	s.addAuditTo(cmd, &s.auditor)
	cmd.Args = optional("FILE")
	cmd.ValidArgsFunction = completeBundle
}

func auditReportCommand() *cobra.Command {
	var s source
	var job, page string
	cmd := &cobra.Command{
		Use:   "report [FILE]",
		Short: "Show what was promised, spent and is left, from a verified ledger",
		Long: `Report verifies a ledger, of a file or as a cluster has it now, and says for every job
what was promised to whom, what is spent and left, attempt by attempt, whom one has to
trust, and what is not covered.`,
		Example: `  undertone audit report
  undertone audit report ledger.zip --key ledger.pub --job movies
  undertone audit report ledger.zip --key ledger.pub --html movies.html`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case page == "":
			case s.json:
				return flagf("html", "is one form, and --json another")
			case page != dash:
				if err := checkPage(page); err != nil {
					return fmt.Errorf("--html: %w", err)
				}
			}
			v, err := s.verified(cmd, args)
			if err != nil {
				return err
			}
			r := v.report
			if job != "" {
				if r.Jobs = slices.DeleteFunc(r.Jobs, func(j report.Job) bool { return j.Name != job }); len(r.Jobs) == 0 {
					return flagf("job", "the ledger has no job %q", job)
				}
			}
			switch {
			case page != "":
				return writePage(cmd, page, r)
			case s.json:
				return r.WriteJSON(cmd.OutOrStdout())
			}
			return r.WriteText(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&job, "job", "", "`name` of one job (default: all)")
	cmd.Flags().StringVar(&page, "html", "", "write a page for a browser, a `file` (- is stdout), instead of text")
	complete(cmd, "html", files("html"))
	complete(cmd, "job", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return s.jobNames(cmd), cobra.ShellCompDirectiveNoFileComp
	})
	s.addTo(cmd)
	return cmd
}

// checkPage refuses to have a page written over anything but an earlier one.
func checkPage(path string) error {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return nil // draftOf says what stands in its way
	}
	f, err := os.Open(path)
	if err != nil {
		return problemAt(path, err)
	}
	defer f.Close()
	start, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return problemAt(path, err)
	}
	if !pages.IsReport(start) {
		return usagef("%s: there is something else already, and nothing but a report is overwritten", path)
	}
	return nil
}

// writePage writes a report as a page, into a file or to stdout.
func writePage(cmd *cobra.Command, path string, r *report.Report) error {
	if path == dash {
		return pages.WriteReport(cmd.OutOrStdout(), r)
	}
	var n int64
	err := draftOf(path, 0o644, func(d draft) (err error) {
		if err := pages.WriteReport(d, r); err != nil {
			return err
		}
		n, err = d.Seek(0, io.SeekCurrent)
		return err
	})
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", path, size(uint64(n)))
	return nil
}

func auditExportCommand() *cobra.Command {
	var s source
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Print every mechanism that was charged, for other accountants",
		Long: `Export verifies a ledger, of a file or as a cluster has it now, and prints the
mechanisms of each job as a list of events that Google's dp_accounting composes, with
the epsilons that this program's accountants come to. dp/ledger/report/FORMAT.md
describes it.`,
		Example: `  undertone audit export ledger.zip --key ledger.pub > mechanisms.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := s.verified(cmd, args)
			if err != nil {
				return err
			}
			e, err := report.Export(v.history)
			if err != nil {
				return err
			}
			return e.WriteJSON(cmd.OutOrStdout())
		},
	}
	s.addTo(cmd)
	return cmd
}

// measurement is what is read of the result of undertone audit canary --json.
type measurement struct {
	Version    int       `json:"version"`
	Date       time.Time `json:"date"`
	Job        string    `json:"job"`
	Claimed    *float64  `json:"claimed_epsilon"`
	Lower      *float64  `json:"lower_bound_epsilon"`
	Upper      float64   `json:"upper_bound_epsilon"` // 0, or not there: none
	Delta      float64   `json:"delta"`
	Confidence float64   `json:"confidence"`
	Trials     uint64    `json:"trials"`
	Passed     *bool     `json:"passed"`
	How        string    `json:"how"`
}

// bySelf is what a measurement is of that does not say so.
const bySelf = "undertone audit canary"

func auditRecordCommand() *cobra.Command {
	var c connection
	var job string
	cmd := &cobra.Command{
		Use:   "record FILE",
		Short: "Put a canary's result into the ledger",
		Long: `Record puts the result of undertone audit canary --json on record, under the name of
the certificate that it is called with: that the noise of a job was measured, when, how, and
between which bounds epsilon was found to be. - is stdin. The same result twice is one
record.`,
		Example: `  undertone audit canary --spec movies.json --json > canary.json
  undertone audit record canary.json`,
		Args: named("FILE"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := readMeasurement(cmd, args[0])
			if err != nil {
				return err
			}
			if job == "" {
				job = m.Job
			}
			var at uint64
			err = c.keep(cmd, repeated, func(ctx context.Context, b books) error {
				r, err := b.RecordCanary(ctx, &undertonev1.RecordCanaryRequest{
					Job: job, ClaimedEpsilon: *m.Claimed, LowerEpsilon: *m.Lower, Delta: m.Delta, Confidence: m.Confidence,
					Trials: m.Trials, Passed: *m.Passed, MeasuredMs: m.Date.UnixMilli(),
					UpperEpsilon: m.Upper, How: cmp.Or(m.How, bySelf),
				})
				at = r.GetRecord()
				return err
			})
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"job": job, "record": at})
			}
			of := cmp.Or(m.How, bySelf)
			if not := report.HowMeans(of); not != "" {
				of += ", " + not
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "record %d of the ledger: a measurement of %s: %s\n", at, job, of)
			return err
		},
	}
	cmd.Flags().StringVar(&job, "job", "", "`name` of the job whose noise it is (default: the file's)")
	complete(cmd, "job", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return c.jobNames(cmd), cobra.ShellCompDirectiveNoFileComp
	})
	c.addAuditTo(cmd, nil)
	return cmd
}

func readMeasurement(cmd *cobra.Command, path string) (*measurement, error) {
	text, err := readInput(cmd, path)
	if err != nil {
		return nil, err
	}
	m := new(measurement)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, usagef("%s: no result of undertone audit canary --json: %w", path, err)
	}
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"job", m.Job == ""}, {"date", m.Date.IsZero()}, {"claimed_epsilon", m.Claimed == nil},
		{"lower_bound_epsilon", m.Lower == nil}, {"trials", m.Trials == 0}, {"passed", m.Passed == nil},
	} {
		if field.missing {
			return nil, usagef("%s: %s: is missing: it is no result of undertone audit canary --json", path, field.name)
		}
	}
	if m.Version != 1 {
		return nil, usagef("%s: version: %d is not 1, which this program knows", path, m.Version)
	}
	return m, nil
}

func auditLinkCommand() *cobra.Command {
	var c connection
	var d time.Duration
	cmd := &cobra.Command{
		Use:   "link",
		Short: "Print a link to a node's pages, for a browser without a certificate",
		Long: `Link prints an address of the pages of the node that answers. For a while, and for
whoever has it, a browser reads there what the caller could read.`,
		Args:              named(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const most = 15 * time.Minute
			if d < time.Second || d > most {
				return flagf("for", "%v is not from 1s to %v", d, most)
			}
			var r *undertonev1.CreateLinkResponse
			err := c.keep(cmd, repeated, func(ctx context.Context, b books) (err error) {
				r, err = b.CreateLink(ctx, &undertonev1.CreateLinkRequest{Seconds: uint32(d.Seconds())})
				return err
			})
			if err != nil {
				return err
			}
			expires := time.UnixMilli(r.GetExpiresMs())
			if c.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"url": r.GetUrl(), "expires": expires.UTC().Format(time.RFC3339)})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "until %s, for whoever has it:\n", expires.Format("15:04:05"))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), r.GetUrl())
			return err
		},
	}
	cmd.Flags().DurationVar(&d, "for", 15*time.Minute, "`time` for which it is good")
	complete(cmd, "for", cobra.NoFileCompletions)
	c.addAuditTo(cmd, nil)
	return cmd
}

// optional takes an argument, or none.
func optional(name string) cobra.PositionalArgs {
	takes := named(name)
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return takes(cmd, args)
	}
}

func completeBundle(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"zip"}, cobra.ShellCompDirectiveFilterFileExt
}
