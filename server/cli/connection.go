package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

// Environment of the commands that call a server.
const (
	envServer   = "UNDERTONE_SERVER"
	envIdentity = "UNDERTONE_IDENTITY"
)

const (
	defaultAPI     = "127.0.0.1:7300"
	defaultAPIPort = "7300"
)

// maxMessage bounds an answer: the jobs with all their attempts.
const maxMessage = 64 << 20

// connection is the flags of the commands that call a server.
type connection struct {
	servers  []string
	identity string
	files    identity.Files
	timeout  time.Duration
	json     bool
}

// flags are those that say which server, and as whom.
func (c *connection) flags() *pflag.FlagSet { return c.part(true) }

// part is flags, with or without those that name single files of an identity: to the
// commands of an auditor --key is the ledger's.
func (c *connection) part(files bool) *pflag.FlagSet {
	flags := commandline.Part("Server")
	flags.StringSliceVar(&c.servers, "server", nil, "`addresses` of servers, the first that answers is used (default: $"+envServer+", or "+defaultAPI+")")
	flags.StringVar(&c.identity, "identity", "", "`directory` of tls.crt, tls.key and ca.crt (default: $"+envIdentity+")")
	if files {
		flags.StringVar(&c.files.Certificate, "cert", "", "certificate `file`, instead of --identity's")
		flags.StringVar(&c.files.Key, "key", "", "key `file`, instead of --identity's")
		flags.StringVar(&c.files.Authority, "ca", "", "`file` of the servers' authority, instead of --identity's")
	}
	flags.DurationVar(&c.timeout, "timeout", 30*time.Second, "`time` to wait for an answer")
	flags.BoolVar(&c.json, "json", false, "print JSON")
	return flags
}

// addTo gives a command, after its own flags, those of a connection.
func (c *connection) addTo(cmd *cobra.Command) {
	commandline.AddParts(cmd, c.flags())
	c.complete(cmd)
}

func (c *connection) complete(cmd *cobra.Command) {
	c.completeServer(cmd)
	for _, flag := range []string{"cert", "key", "ca"} {
		complete(cmd, flag, files())
	}
}

func (c *connection) completeServer(cmd *cobra.Command) {
	complete(cmd, "server", cobra.NoFileCompletions)
	complete(cmd, "timeout", cobra.NoFileCompletions)
	complete(cmd, "identity", directories)
}

// directory of the identity, and where its name is from.
func (c *connection) directory() (dir, from string) {
	if c.identity != "" {
		return c.identity, "--identity"
	}
	return os.Getenv(envIdentity), envIdentity
}

// bearer loads the identity that the flags and the environment name.
func (c *connection) bearer(log *slog.Logger) (*identity.Bearer, error) {
	dir, from := c.directory()
	f := overriding(c.files, dir)
	switch {
	case f.Certificate == "" || f.Key == "" || f.Authority == "":
		return nil, flagf("identity", "who calls? Name a directory of tls.crt, tls.key and ca.crt (undertone ca issue operator NAME makes one), here or in %s", envIdentity)
	case dir != "" && c.files == (identity.Files{}):
		if _, err := os.Stat(dir); err != nil {
			return nil, usagef("%s: %w", from, pathProblem(err))
		}
	}
	b, err := identity.LoadWithLogger(f, log)
	if err != nil && c.files == (identity.Files{}) {
		err = fmt.Errorf("%s: %w", from, err)
	}
	return b, err
}

// overriding are the files of a directory, but for those that are given.
func overriding(given identity.Files, dir string) identity.Files {
	if dir == "" {
		return given
	}
	f := identity.In(dir)
	for _, file := range []struct{ of, given *string }{
		{&f.Certificate, &given.Certificate}, {&f.Key, &given.Key}, {&f.Authority, &given.Authority},
	} {
		if *file.given != "" {
			*file.of = *file.given
		}
	}
	return f
}

// addresses are the servers to try, each with a port.
func (c *connection) addresses() ([]string, error) {
	list, from := c.servers, "--server"
	if len(list) == 0 {
		if env := os.Getenv(envServer); env != "" {
			list, from = strings.Split(env, ","), envServer
		} else {
			list = []string{defaultAPI}
		}
	}
	out := make([]string, len(list))
	for i, a := range list {
		a = strings.TrimSpace(a)
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), defaultAPIPort)
		}
		if !isAddress(a) {
			return nil, usagef("%s: %q is no address HOST:PORT", from, list[i])
		}
		out[i] = a
	}
	return out, nil
}

// repeat says whether a call may be made again when its outcome is unknown.
type repeat bool

const (
	once     repeat = false
	repeated repeat = true
)

// call does f with the first server that answers, and gives errors words. A
// server that has no leader for the moment is asked again if f may be repeated.
func (c *connection) call(cmd *cobra.Command, again repeat, f func(context.Context, operator) error) error {
	return c.on(cmd, again, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, undertonev1grpc.NewOperatorServiceClient(conn))
	})
}

// on is call with any of a server's services.
func (c *connection) on(cmd *cobra.Command, again repeat, f func(context.Context, *grpc.ClientConn) error) error {
	return c.with(cmd, again, func(ctx context.Context, conn *grpc.ClientConn) error {
		for {
			err := f(ctx, conn)
			if r := refusal(err); r.GetReason() != undertonev1.Reason_REASON_NO_LEADER || again == once {
				return err
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
}

// with connects to the first server that can be reached and does f, within the
// timeout. What was certainly not done is tried elsewhere, where there was no connection,
// or the node lacks a key, and what may be repeated also where the connection broke off:
// another call may have been performed.
func (c *connection) with(cmd *cobra.Command, again repeat, f func(context.Context, *grpc.ClientConn) error) error {
	if c.timeout <= 0 {
		return flagf("timeout", "%v is not positive", c.timeout)
	}
	servers, err := c.addresses()
	if err != nil {
		return err
	}
	bearer, err := c.bearer(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()

	var unreached []string
	for i, server := range servers {
		share := c.timeout / time.Duration(len(servers)-i)
		err := dial(ctx, min(share, 5*time.Second), server, bearer, f)
		var unreachable *unreachableError
		switch {
		case errors.As(err, &unreachable):
			unreached = append(unreached, unreachable.Error())
		case refusal(err).GetReason() == undertonev1.Reason_REASON_NO_KEY:
			unreached = append(unreached, explain(err, server, again).Error())
		case again == repeated && status.Code(err) == codes.Unavailable && refusal(err) == nil:
			unreached = append(unreached, explain(err, server, again).Error())
		default:
			return explain(err, server, again)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err := cmd.Context().Err(); err != nil {
		return errors.New("interrupted")
	}
	return errors.New(strings.Join(unreached, "; "))
}

// unreachableError says that there was no connection, and so no call.
type unreachableError struct{ server, problem string }

func (e *unreachableError) Error() string { return e.server + ": " + e.problem }

// dial does f over a connection to a server.
func dial(ctx context.Context, patience time.Duration, server string, b *identity.Bearer, f func(context.Context, *grpc.ClientConn) error) error {
	conn, err := grpc.NewClient("passthrough:///"+server,
		grpc.WithTransportCredentials(grpctls.Client(b)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return &unreachableError{server, err.Error()}
	}
	defer conn.Close()

	reached, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure {
			// Only a call tells why; it fails at once, unless there is a
			// connection by now.
			_, err := undertonev1grpc.NewOperatorServiceClient(conn).ListJobs(reached, &undertonev1.ListJobsRequest{})
			if status.Code(err) != codes.Unavailable || refusal(err) != nil {
				break
			}
			return &unreachableError{server, grpctls.Problem(err)}
		}
		if !conn.WaitForStateChange(reached, state) {
			return &unreachableError{server, fmt.Sprintf("no answer within %v", patience.Round(time.Microsecond))}
		}
	}
	return f(ctx, conn)
}

// refusal is the detail of a status, nil if it has none.
func refusal(err error) *undertonev1.Refusal {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*undertonev1.Refusal); ok {
			return r
		}
	}
	return nil
}

// mistakes are the reasons that are the caller's own.
var mistakes = map[undertonev1.Reason]bool{
	undertonev1.Reason_REASON_MALFORMED:    true,
	undertonev1.Reason_REASON_UNKNOWN_JOB:  true,
	undertonev1.Reason_REASON_UNKNOWN_NODE: true,
	undertonev1.Reason_REASON_JOB_EXISTS:   true,
}

// explain puts what a server answered into words.
func explain(err error, server string, again repeat) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := s.Message()
	r := refusal(err)
	if r.GetDetail() != "" {
		text = r.GetDetail()
	}
	switch r.GetReason() {
	case undertonev1.Reason_REASON_UNKNOWN_JOB:
		text += " (undertone job list shows what there is)"
	case undertonev1.Reason_REASON_UNKNOWN_NODE:
		text += " (undertone status shows what there is)"
	case undertonev1.Reason_REASON_NO_LEADER:
		text += " (undertone status shows who leads)"
	}
	if mistakes[r.GetReason()] {
		return usagef("%s", text)
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		text = "no answer in time (--timeout)"
		if again == once {
			text += "; whether it was done is open"
		}
	case codes.Canceled:
		return errors.New("interrupted")
	case codes.Unavailable:
		if r == nil {
			text = strings.Replace(grpctls.Problem(err), "error reading from server: ", "the connection broke off: ", 1)
		}
	default:
		if r == nil && strings.Contains(text, "unexpected content-type") {
			text = "no undertone service answers there, but a web page's: is it the port of the pages?"
		}
	}
	return fmt.Errorf("%s: %s", server, text)
}

// follow shows something again and again until it is over or interrupted: on a
// terminal in one place, elsewhere one time after the other, when its state is
// another one.
func follow(cmd *cobra.Command, show func(io.Writer) (state string, over bool, err error)) error {
	const every = time.Second
	out := cmd.OutOrStdout()
	f, ok := out.(*os.File)
	screen := ok && term.IsTerminal(int(f.Fd()))
	var last string
	for first := true; ; first = false {
		var text strings.Builder
		state, over, err := show(&text)
		if cmd.Context().Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if screen || first || state != last {
			before := ""
			switch {
			case screen:
				before = "\x1b[H\x1b[2J" // home, clear
			case !first:
				before = "\n"
			}
			if _, err := io.WriteString(out, before+text.String()); err != nil {
				return err
			}
		}
		last = state
		if over {
			return nil
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(every):
		}
	}
}
