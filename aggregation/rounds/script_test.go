package rounds_test

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// TestScripts runs the scripts in testdata: commands in, states out. Their
// README says what the commands are; -rewrite writes what comes out.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := &script{m: rounds.NewMachine(), specs: make(map[string]*rounds.Spec)}
		datadriven.RunTest(t, path, s.run)
	})
}

// script is the state of one script: a machine, and the job that commands are
// about unless they name another.
type script struct {
	m     *rounds.Machine
	job   string
	specs map[string]*rounds.Spec

	effects bool  // whether the effects of commands are printed
	at      int64 // when the next command is proposed; 0: it has no date
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	d.MaybeScanArgs(t, "job", &s.job)
	d.MaybeScanArgs(t, "at", &s.at)
	round, attempt := intArg(t, d, "round", 0), intArg(t, d, "attempt", 1)
	if round == 0 {
		attempt = 0
	}
	switch d.Cmd {
	case "create":
		spec := newSpec(s.job, intArg(t, d, "rounds", 1), intArg(t, d, "length", 2),
			accounting.NanoRho(intArg(t, d, "charge", 10)), accounting.NanoRho(intArg(t, d, "budget", 100)))
		spec.NMin = intArg(t, d, "n-min", spec.NMin)
		spec.RoundSize = intArg(t, d, "size", spec.RoundSize)
		if s.specs[s.job] == nil {
			s.specs[s.job] = spec
		}
		return s.apply(rounds.CreateJob{Spec: encode(t, spec), State: blob(t, d, []byte(textArg(t, d, "state", "U0")))})
	case "run":
		return s.apply(rounds.Run{Job: s.job, Until: intArg(t, d, "until", 0)})
	case "pause":
		return s.apply(rounds.Run{Job: s.job, Until: rounds.NoRound})
	case "open":
		return s.apply(rounds.OpenRound{Job: s.job, Round: round, Attempt: attempt})
	case "stage":
		whole, size, digest := s.whole(t, d)
		from := intArg(t, d, "from", 0)
		to := intArg(t, d, "to", len(whole))
		return s.apply(rounds.Stage{
			Job: s.job, Round: round, Attempt: attempt,
			Digest: digest, Size: size, Offset: int64(from), Piece: whole[from:to],
		})
	case "collect":
		var members []rounds.ClientID
		for _, name := range listArg(d, "members") {
			members = append(members, rounds.ClientOf(name))
		}
		return s.apply(rounds.Collect{Job: s.job, Round: round, Attempt: attempt, Members: members, Sum: blob(t, d, s.sum(t, d))})
	case "close":
		return s.apply(rounds.CloseRound{Job: s.job, Round: round, Attempt: attempt})
	case "release":
		return s.apply(rounds.ReleaseRound{Job: s.job, Round: round, Attempt: attempt, State: blob(t, d, []byte(textArg(t, d, "state", "")))})
	case "fail":
		return s.apply(rounds.FailRound{Job: s.job, Round: round, Attempt: attempt, Why: d.Input})
	case "close-job":
		return s.apply(rounds.CloseJob{Job: s.job})
	case "begin-ledger":
		return s.perform(beginLedger(t), s.size)
	case "rotate-key":
		return s.perform(rotation(t, byte(intArg(t, d, "from", 0)), byte(intArg(t, d, "to", 1))), s.size)
	case "measure":
		return s.perform(measured(s.job), s.size)
	case "ledger":
		return s.ledger()
	case "restore-backup":
		var another *rounds.BeginLedger
		if d.HasArg("new-ledger") {
			another = anotherLedger(t)
		}
		snapshot, err := rounds.Anew(s.m.Snapshot(), s.at, another)
		if err != nil {
			return err.Error()
		}
		if s.m, err = rounds.Restore(snapshot); err != nil {
			return err.Error()
		}
		return s.show()
	case "member":
		in, known := s.m.Member(s.job, round, attempt, rounds.ClientOf(textArg(t, d, "client", "")))
		return fmt.Sprintf("in: %v, known: %v", in, known)
	case "restart":
		m, err := rounds.Restore(s.m.Snapshot())
		if err != nil {
			return err.Error()
		}
		s.m = m
		return s.show()
	case "show":
		return s.show()
	case "effects":
		s.effects = true
		return "effects of commands are shown"
	}
	d.Fatalf(t, "no command %q", d.Cmd)
	return ""
}

// apply prints what became of a command, and of the job.
func (s *script) apply(c rounds.Command) string { return s.perform(c, s.line) }

// perform prints what became of a command, and something after it.
func (s *script) perform(c rounds.Command, then func() string) string {
	if s.at != 0 {
		c = rounds.Dated{At: s.at, Command: c}
	}
	effect, err := s.m.Apply(c)
	out := ""
	if s.effects {
		out = fmt.Sprintf("effect %x\n", effect[:8])
	}
	var refusal *rounds.Refusal
	switch {
	case err == nil:
		return out + then()
	case !errors.As(err, &refusal):
		return fmt.Sprintf("not a refusal: %v", err)
	}
	out += "refused: " + refusal.Error()
	if refusal.Counted != nil {
		out += fmt.Sprintf("; counted: %v", refusal.Counted)
	}
	if refusal.Reason == rounds.Full {
		out += fmt.Sprintf("; room: %d", refusal.Room)
	}
	return out
}

// line is the job, and its last attempt.
func (s *script) line() string {
	v, ok := s.m.Job(s.job)
	if !ok {
		return "no job " + s.job
	}
	out := fmt.Sprintf("%s: %v, %d of %d released, %q, spent %d of %d", s.job, v.State,
		v.Released, len(v.Spec.Releases), v.Latest.Bytes, uint64(v.Spent), uint64(v.Spec.Budget))
	if n := len(v.Attempts); n > 0 {
		out += "\n" + s.attempt(v.Attempts[n-1])
	}
	return out
}

// show is the job with all its attempts, and what is staged.
func (s *script) show() string {
	var out strings.Builder
	v, _ := s.m.Job(s.job)
	line, _, _ := strings.Cut(s.line(), "\n")
	out.WriteString(line + "\n")
	for _, a := range v.Attempts {
		out.WriteString(s.attempt(a) + "\n")
	}
	for _, b := range s.m.Snapshot().Staged {
		fmt.Fprintf(&out, "  staged for %s %d/%d: %d of %d bytes\n", b.Job, b.Round, b.Attempt, len(b.Bytes), b.Size)
	}
	fmt.Fprintf(&out, "clients: %d\n", s.m.Clients())
	return out.String()
}

// size is how many records the ledger has.
func (s *script) size() string { return fmt.Sprintf("%d records", s.m.Ledger().Size()) }

// ledger is its records, with the beginnings of digests and keys.
func (s *script) ledger() string {
	if s.m.Ledger() == nil {
		return "no ledger"
	}
	var out strings.Builder
	for i, record := range s.m.Ledger().Records() {
		fmt.Fprintf(&out, "%d %s\n", i, long.ReplaceAll(record, []byte("$1...")))
	}
	return out.String()
}

var long = regexp.MustCompile(`([0-9a-zA-Z+/=]{8})[0-9a-zA-Z+/=]{24,}`)

func (s *script) attempt(a rounds.Attempt) string {
	out := fmt.Sprintf("  %d/%d %v, members %d", a.Round, a.Attempt, a.Phase, a.Members)
	if sum := s.m.Sum(s.job); a.Phase == rounds.Closed {
		out += fmt.Sprintf(", sum %v", sum)
	}
	if a.Why != "" {
		out += ": " + a.Why
	}
	return out
}

// whole is the blob that a stage command has a piece of: a state, or a sum.
func (s *script) whole(t *testing.T, d *datadriven.TestData) ([]byte, int64, rounds.Digest) {
	b := []byte(textArg(t, d, "state", ""))
	if d.HasArg("sum") {
		b = s.sum(t, d)
	}
	whole := blob(t, d, b)
	if d.HasArg("spoilt") {
		b = append([]byte{b[0] ^ 1}, b[1:]...)
	}
	return b, int64(intArg(t, d, "bytes", len(b))), whole.Digest
}

// sum is the packed sum that the command names.
func (s *script) sum(t *testing.T, d *datadriven.TestData) []byte {
	var sum []int64
	for _, v := range listArg(d, "sum") {
		x, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		sum = append(sum, x)
	}
	return pack(s.specs[s.job], sum...).Bytes
}

// blob has the bytes b, or with the word staged none of them.
func blob(t *testing.T, d *datadriven.TestData, b []byte) rounds.Blob {
	blob := rounds.BlobOf(b)
	if d.HasArg("staged") {
		blob.Bytes = nil
	}
	if d.HasArg("wrong-digest") {
		blob.Digest[0]++
	}
	return blob
}

func intArg(t *testing.T, d *datadriven.TestData, key string, value int) int {
	d.MaybeScanArgs(t, key, &value)
	return value
}

func textArg(t *testing.T, d *datadriven.TestData, key, value string) string {
	d.MaybeScanArgs(t, key, &value)
	return value
}

func listArg(d *datadriven.TestData, key string) []string {
	arg, _ := d.Arg(key)
	return arg.Vals
}
