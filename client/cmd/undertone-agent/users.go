package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/proto/identity"
)

// user is one of many: each has an identity, a folder and a record of its own, and
// shares the process, and what is public.
type user struct {
	name     string
	config   client.Config
	held     []client.Row // that are not learned from
	finished bool
	refused  bool // for good, when it was last tried
}

// crowd is the users of a process.
type crowd struct {
	users   []*user
	workers int
	stderr  io.Writer
}

// counts is what a pass over the users came to.
type counts struct {
	Users       int `json:"users"`
	Contributed int `json:"contributed"` // to a round, in this pass
	Refused     int `json:"refused"`     // took no part, for a reason of their own
	Failed      int `json:"failed"`      // to reach a server, or to write
	Finished    int `json:"finished"`
	// RMSE of the rows that are held out, where there are any.
	RMSE   *float64 `json:"rmse,omitempty"`
	Held   int      `json:"held_out,omitempty"`
	Reason string   `json:"reason,omitempty"` // of the first that was refused or failed

	gone refusals
}

// refusals are the users who are refused for good.
type refusals struct {
	users int
	first string // of them, and why
}

// of is the error that says so, nil if there are none.
func (r refusals) of(users int) error {
	if r.users == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d users are refused for good, the first %s", r.users, users, r.first)
}

// crowd makes the users of --users.
func (f *flags) crowd(stderr io.Writer, network bool) (*crowd, error) {
	base, err := f.config(stderr)
	if err != nil {
		return nil, err
	}
	if network && len(f.servers) == 0 {
		return nil, commandline.Flagf("server", "is missing: HOST:PORT of a server")
	}
	base.Offline = !network
	info, err := os.Stat(f.users)
	if err != nil {
		return nil, fileMistake("users", err)
	}
	c := &crowd{workers: f.workers, stderr: stderr}
	if c.workers == 0 {
		c.workers = 2 * runtime.GOMAXPROCS(0)
	}
	if c.workers < 1 {
		return nil, commandline.Flagf("workers", "%d is less than 1", f.workers)
	}
	if f.train < 0 || f.train >= 1 && f.train != math.Trunc(f.train) || math.IsInf(f.train, 0) {
		return nil, commandline.Flagf("train", "%v is neither a number of rows nor a fraction", f.train)
	}
	if info.IsDir() {
		err = f.folders(c, base)
	} else {
		err = f.table(c, base, network)
	}
	if err != nil {
		return nil, err
	}
	if len(c.users) == 0 {
		return nil, commandline.Flagf("users", "%s has no users", f.users)
	}
	return c, nil
}

// library is where what is public is shared.
const library = "public"

// folders makes a user of every folder in --users.
func (f *flags) folders(c *crowd, base client.Config) error {
	entries, err := os.ReadDir(f.users)
	if err != nil {
		return fileMistake("users", err)
	}
	items, err := f.catalogue()
	if err != nil {
		return err
	}
	if base.Library, err = client.OpenLibrary(filepath.Join(f.users, library)); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == library {
			continue
		}
		folder := filepath.Join(f.users, e.Name())
		u := &user{name: e.Name(), config: base}
		u.config.Dir = filepath.Join(folder, "device")
		u.config.Identity = identity.In(folder)
		if u.config.LedgerKey, err = f.publicKey(folder); err != nil {
			return err
		}
		u.config.Samples = client.CSV(filepath.Join(folder, "samples.csv"), client.Format(f.format), items)
		c.users = append(c.users, u)
	}
	return nil
}

// table makes a user of every name in the file --users.
func (f *flags) table(c *crowd, base client.Config, network bool) error {
	if f.dir == "" {
		return commandline.Flagf("dir", "is missing: the directory of the clients' directories")
	}
	if network && f.identity == "" {
		return commandline.Flagf("identity", "is missing: the directory of the clients' certificates")
	}
	items, err := f.catalogue()
	if err != nil {
		return err
	}
	t, err := client.OpenTable(f.users, client.Format(f.format), items)
	if err != nil {
		return fileMistake("users", err)
	}
	var held *client.Table
	if f.train > 0 {
		held = t.HoldOut(f.train, f.seed)
	}
	if base.Library, err = client.OpenLibrary(filepath.Join(f.dir, library)); err != nil {
		return err
	}
	for _, name := range t.Users() {
		if name == "" {
			return commandline.Flagf("users", "%s has no column called user", f.users)
		}
		u := &user{name: name, config: base}
		u.config.Dir = filepath.Join(f.dir, "user-"+folderName(name))
		certificate := filepath.Join(f.identity, folderName(name))
		u.config.Identity = identity.In(certificate)
		if network {
			if u.config.LedgerKey, err = f.publicKey(certificate); err != nil {
				return err
			}
		}
		u.config.Samples = t.Samples(name)
		if held != nil {
			u.held = held.Rows(name)
		}
		c.users = append(c.users, u)
	}
	return nil
}

// folderName is a user's name as a folder has it: as undertone ca names the folders
// of the certificates that it issues.
func folderName(name string) string {
	escaped := url.PathEscape(name)
	if strings.Trim(escaped, ".") == "" {
		escaped = strings.ReplaceAll(escaped, ".", "%2E")
	}
	return escaped
}

// each calls f for every user, several at a time.
func (c *crowd) each(ctx context.Context, describe string, f func(*user)) error {
	bar := c.bar(describe)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(c.workers, len(c.users)) {
		wait.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= len(c.users) {
					return
				}
				f(c.users[i])
				_ = bar.Add(1)
			}
		})
	}
	wait.Wait()
	_ = bar.Clear()
	return ctx.Err()
}

// bar is on a terminal only.
func (c *crowd) bar(describe string) *progressbar.ProgressBar {
	w := io.Discard
	if f, ok := c.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		w = f
	}
	return progressbar.NewOptions(len(c.users),
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(describe),
		progressbar.OptionSetWidth(20),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("users"),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// pass syncs every user that is not finished. It fails for a mistake in what the
// command line names, and when ctx is done.
func (c *crowd) pass(ctx context.Context, describe string) (counts, error) {
	var mu sync.Mutex
	total := counts{Users: len(c.users)}
	var mistake error
	err := c.each(ctx, describe, func(u *user) {
		if u.finished {
			mu.Lock()
			total.Finished++
			mu.Unlock()
			return
		}
		s, err := u.sync(ctx)
		mu.Lock()
		defer mu.Unlock()
		if s != nil && s.Finished {
			u.finished = true
			total.Finished++
		}
		note := func(count *int, err error) {
			*count++
			if total.Reason == "" {
				total.Reason = u.name + ": " + commandline.OneLine(err.Error())
			}
			if isMistake(err) && mistake == nil {
				mistake = fmt.Errorf("user %s: %w", u.name, err)
			}
		}
		if u.refused = client.ForGood(err); u.refused {
			if total.gone.users++; total.gone.users == 1 {
				total.gone.first = u.name + ": " + commandline.OneLine(err.Error())
			}
		}
		if err != nil {
			note(&total.Failed, err)
			return
		}
		for _, j := range s.Jobs {
			switch {
			case j.Err != nil && errors.Is(j.Err, client.ErrUnavailable):
				note(&total.Failed, j.Err)
			case j.Err != nil:
				note(&total.Refused, j.Err)
			case j.Outcome == client.Contributed && !j.Earlier:
				total.Contributed++
			}
		}
	})
	if mistake != nil {
		err = mistake
	}
	return total, err
}

func (u *user) sync(ctx context.Context) (*client.Summary, error) {
	d, err := client.Open(u.config)
	if err != nil {
		return nil, asMistake(err)
	}
	defer d.Close()
	return d.Sync(ctx)
}

// syncUsers is one pass.
func (f *flags) syncUsers(cmd *cobra.Command) error {
	c, err := f.crowd(cmd.ErrOrStderr(), true)
	if err != nil {
		return err
	}
	total, err := c.pass(cmd.Context(), "sync")
	if err != nil {
		return err
	}
	total.print(cmd.OutOrStdout(), "sync", f.json)
	if total.Failed > 0 {
		return fmt.Errorf("%d of %d users failed, the first %s", total.Failed, total.Users, total.Reason)
	}
	return nil
}

// idle is how long to leave the servers alone when nothing has changed.
const idle = time.Second

// runUsers makes passes for as long as there is something to do, and looks out with
// one user's eyes when there is not. It fails once nobody is left whom the servers and
// their ledger admit; if all are to finish, once somebody is not.
func (f *flags) runUsers(cmd *cobra.Command, untilFinished bool) error {
	c, err := f.crowd(cmd.ErrOrStderr(), true)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	for n := 1; ; n++ {
		name := fmt.Sprintf("pass %d", n)
		total, err := c.pass(ctx, name)
		if err != nil {
			return quietly(err)
		}
		if total.Finished == total.Users && untilFinished {
			if err := c.measure(ctx, f.jobs, &total); err != nil {
				return quietly(err)
			}
			total.print(cmd.OutOrStdout(), "finished", f.json)
			return nil
		}
		total.print(cmd.OutOrStdout(), name, f.json)
		if untilFinished || total.gone.users+total.Finished == total.Users {
			if err := total.gone.of(total.Users); err != nil {
				return err
			}
		}
		if total.Contributed > 0 {
			continue
		}
		if err := c.lookOut(ctx); err != nil {
			return quietly(err)
		}
	}
}

// lookOut returns once the first unfinished user that is admitted has something to do, has
// done it, or could not reach a server; or after a minute, for those who differ from it.
func (c *crowd) lookOut(ctx context.Context) error {
	var scout *user
	for _, u := range c.users {
		if !u.finished && !u.refused {
			scout = u
			break
		}
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		select {
		case <-time.After(idle):
		case <-ctx.Done():
			return ctx.Err()
		}
		if scout == nil {
			continue
		}
		s, err := scout.sync(ctx)
		if err != nil {
			continue // the next pass says so
		}
		scout.finished = s.Finished
		for _, j := range s.Jobs {
			if j.Updated || j.Outcome != "" && !j.Earlier {
				return nil
			}
		}
	}
	return nil
}

func (t *counts) print(w io.Writer, what string, asJSON bool) {
	if asJSON {
		_ = json.NewEncoder(w).Encode(t)
		return
	}
	fmt.Fprintf(w, "%s: %d users, %d contributed, %d refused, %d failed, %d finished", what, t.Users, t.Contributed, t.Refused, t.Failed, t.Finished)
	if t.RMSE != nil {
		fmt.Fprintf(w, "; rmse %.4f on %d samples held out", *t.RMSE, t.Held)
	}
	if t.Reason != "" {
		fmt.Fprintf(w, " (%s)", t.Reason)
	}
	fmt.Fprintln(w)
}

func evaluateCommand() *cobra.Command {
	var f flags
	var job string
	cmd := &cobra.Command{
		Use:   "evaluate --job JOB --users FILE --train N",
		Short: "Measure the users' models on the samples held out, offline",
		Args:  commandline.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.users == "":
				return commandline.Flagf("users", "is missing: a CSV file of all users' samples")
			case f.train == 0:
				return commandline.Flagf("train", "is missing: what was learned from")
			case job == "":
				return commandline.Flagf("job", "is missing: the name of a job")
			}
			c, err := f.crowd(cmd.ErrOrStderr(), false)
			if err != nil {
				return err
			}
			total := counts{Users: len(c.users)}
			if err := c.measure(cmd.Context(), []string{job}, &total); err != nil {
				return quietly(err)
			}
			if total.RMSE == nil {
				return fmt.Errorf("no user has a model of %s", job)
			}
			total.print(cmd.OutOrStdout(), "evaluate", f.json)
			return nil
		},
	}
	what := func() *pflag.FlagSet {
		fl := commandline.Part("What to measure")
		fl.StringVar(&job, "job", "", "whose models, the name of a `job`")
		return fl
	}
	f.addTo(cmd, what, f.many, f.rows, f.own)
	return cmd
}

// measure predicts the samples that are held out, of users who have a model. A
// single job is measured; where several could be meant, none is.
func (c *crowd) measure(ctx context.Context, jobs []string, total *counts) error {
	if len(jobs) != 1 {
		return nil
	}
	var mu sync.Mutex
	var square float64
	err := c.each(ctx, "measure", func(u *user) {
		if len(u.held) == 0 {
			return
		}
		config := u.config
		config.Offline = true
		d, err := client.Open(config)
		if err != nil {
			return
		}
		var sum float64
		for _, row := range u.held {
			y, err := d.Predict(jobs[0], row.X, row.Columns)
			if err != nil {
				return
			}
			sum += (y - row.Y) * (y - row.Y)
		}
		mu.Lock()
		defer mu.Unlock()
		square += sum
		total.Held += len(u.held)
	})
	if err == nil && total.Held > 0 {
		rmse := math.Sqrt(square / float64(total.Held))
		total.RMSE = &rmse
	}
	return err
}
