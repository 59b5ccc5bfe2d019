package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/note"
)

var update = flag.Bool("update", false, "write TAMPERING.md anew")

// forger has an ordinary ledger, and whatever of the cluster's keys a tampering needs.
type forger struct {
	testing.TB
	*author
	*ledger.Bundle
	trusted string            // by the auditor
	seen    ledger.Checkpoint // that the auditor kept
}

func newForger(t testing.TB) *forger {
	a := ordinary(t)
	return &forger{TB: t, author: a, Bundle: a.bundle(t), trusted: a.first}
}

// at finds the n-th record, from 0, that begins so and is of a job.
func (f *forger) at(kind, job string, n int) int {
	f.Helper()
	for i, record := range f.Records {
		ofJob := job == "" || bytes.Contains(record, []byte(`"job":"`+job+`"`))
		if ofJob && bytes.HasPrefix(record, []byte(`{"record":"`+kind+`"`)) {
			if n == 0 {
				return i
			}
			n--
		}
	}
	f.Fatalf("no %s record of job %q", kind, job)
	return -1
}

// entry of a record, to be changed and put.
func (f *forger) entry(i int) ledger.Entry {
	f.Helper()
	e, err := ledger.Decode(f.Records[i])
	if err != nil {
		f.Fatal(err)
	}
	return e
}

func (f *forger) put(i int, e ledger.Entry) {
	f.Records = slices.Clone(f.Records)
	f.Records[i] = ledger.Encode(e)
}

// alter changes record i's entry, which is of type E.
func alter[E ledger.Entry](f *forger, i int, change func(e E)) {
	f.Helper()
	e := f.entry(i).(E)
	change(e)
	f.put(i, e)
}

// each changes all entries of type E of a job, of which the change knows itself.
func each[E ledger.Entry](f *forger, change func(e E)) {
	for i := range f.Records {
		if e, is := f.entry(i).(E); is {
			change(e)
			f.put(i, e)
		}
	}
}

func (f *forger) drop(i int) { f.Records = slices.Delete(slices.Clone(f.Records), i, i+1) }

// insert puts an entry before record i, at that record's time.
func (f *forger) insert(i int, e ledger.Entry, stamp *ledger.Stamp) {
	f.Helper()
	next, _, _ := bytes.Cut(f.Records[i], []byte(`,"time_ms":`))
	rest := f.Records[i][len(next)+len(`,"time_ms":`):]
	if _, err := fmt.Sscan(string(rest[:13]), &stamp.Time); err != nil {
		f.Fatal(err)
	}
	f.Records = slices.Insert(slices.Clone(f.Records), i, ledger.Encode(e))
}

// swap exchanges two records, and their times too, so that none goes back.
func (f *forger) swap(i, j int) {
	f.Records = slices.Clone(f.Records)
	a, b := f.Records[i], f.Records[j]
	stamp := regexp.MustCompile(`"time_ms":\d+`)
	f.Records[i] = stamp.ReplaceAll(b, stamp.Find(a))
	f.Records[j] = stamp.ReplaceAll(a, stamp.Find(b))
}

// rewrite replaces a text in record i.
func (f *forger) rewrite(i int, old, replacement string) {
	f.Helper()
	f.Records = slices.Clone(f.Records)
	was := f.Records[i]
	if f.Records[i] = bytes.Replace(was, []byte(old), []byte(replacement), 1); bytes.Equal(f.Records[i], was) {
		f.Fatalf("record %d has no %s", i, old)
	}
}

// flip flips a bit of the first byte after a text in record i.
func (f *forger) flip(i int, after string) {
	f.Helper()
	f.Records = slices.Clone(f.Records)
	f.Records[i] = bytes.Clone(f.Records[i])
	k := bytes.Index(f.Records[i], []byte(after))
	if k < 0 {
		f.Fatalf("record %d has no %s", i, after)
	}
	f.Records[i][k+len(after)] ^= 1
}

// resign signs whatever the records are now, with the genuine key.
func (f *forger) resign() ledger.Checkpoint { return sign(f, f.Bundle, f.signer) }

// freeze gives all records the time of the first.
func (f *forger) freeze() {
	stamp := regexp.MustCompile(`"time_ms":\d+`)
	first := stamp.Find(f.Records[0])
	f.Records = slices.Clone(f.Records)
	for i, record := range f.Records {
		f.Records[i] = stamp.ReplaceAll(record, first)
	}
}

// keep lets the auditor have kept a checkpoint of the genuine first records.
func (f *forger) keep(size int64) {
	f.Helper()
	root, err := f.log.Root(size)
	if err != nil {
		f.Fatal(err)
	}
	f.seen = ledger.Checkpoint{Origin: origin, Size: size, Root: root}
}

// respecify replaces a job's specification, under its new digest in every record.
func (f *forger) respecify(job string, old, replacement string) {
	f.Helper()
	was := f.jobs[job].digest
	raw := strings.Replace(string(f.specs[was]), old, replacement, 1)
	if raw == string(f.specs[was]) {
		f.Fatalf("specification has no %s", old)
	}
	is := ledger.Digest(sha256.Sum256([]byte(raw)))
	f.Specifications = maps.Clone(f.Specifications)
	delete(f.Specifications, was)
	f.Specifications[is] = []byte(raw)
	each(f, func(e *ledger.JobCreated) {
		if e.Specification == was {
			e.Specification = is
		}
	})
	each(f, func(e *ledger.AttemptCharged) {
		if e.Specification == was {
			e.Specification = is
		}
	})
}

func (f *forger) verify() error {
	_, err := ledger.Verify(f.Bundle, f.trusted, f.seen)
	return err
}

// verified is a tampering that the auditor's verification has to catch.
type verified struct {
	name   string
	signed bool // the genuine key signs what the forger made
	do     func(f *forger)
	err    error
}

var verifiedTamperings = []verified{
	{"a flipped bit in the first record", false, func(f *forger) { f.flip(0, `"time_ms":179000000100`) }, ledger.ErrCheckpoint},
	{"a flipped bit in a job's record: its state 0", false, func(f *forger) { f.flip(f.at("job", "books", 0), `"state":"`) }, ledger.ErrHistory},
	{"a flipped bit in an attempt's record: its charge", false, func(f *forger) { f.flip(f.at("attempt", "films", 1), `"charge_nano_rho":"781`) }, ledger.ErrHistory},
	{"a flipped bit in a release's record: the sum's hash", false, func(f *forger) { f.flip(f.at("release", "music", 0), `"sum":"`) }, ledger.ErrCheckpoint},
	{"a flipped bit in a failure's record: its contributions", false, func(f *forger) { f.flip(f.at("failure", "music", 0), `"members":49`) }, ledger.ErrHistory},
	{"a flipped bit in a key's record: the endorsement", false, func(f *forger) { f.flip(f.at("key", "", 0), `"endorsement":"`) }, ledger.ErrSignature},
	{"a flipped bit in a restored record: the era", false, func(f *forger) { f.flip(f.at("restored", "", 0), `"era":`) }, ledger.ErrHistory},
	{"a flipped bit in a canary's record: the bound", false, func(f *forger) { f.flip(f.at("canary", "", 0), `"lower_micro_epsilon":1`) }, ledger.ErrCheckpoint},
	{"a flipped bit in a closed record: what was spent", false, func(f *forger) { f.flip(f.at("closed", "films", 0), `"spent_nano_rho":"`) }, ledger.ErrHistory},
	{"a flipped bit in the checkpoint's signature", false, func(f *forger) {
		f.Checkpoint = bytes.Clone(f.Checkpoint)
		f.Checkpoint[len(f.Checkpoint)-8] ^= 1
	}, ledger.ErrSignature},
	{"a record with a field more", true, func(f *forger) {
		i := f.at("failure", "films", 0)
		f.Records = slices.Clone(f.Records)
		f.Records[i] = bytes.Replace(f.Records[i], []byte(`,"why"`), []byte(`,"refund":"1","why"`), 1)
	}, ledger.ErrEntry},
	{"a record of a kind that is unknown", true, func(f *forger) {
		i := f.at("canary", "", 0)
		f.Records = slices.Clone(f.Records)
		f.Records[i] = []byte(`{"record":"refund","time_ms":1790000020000}`)
	}, ledger.ErrEntry},

	{"a dropped record: the canary", false, func(f *forger) { f.drop(f.at("canary", "", 0)) }, ledger.ErrCheckpoint},
	{"a dropped record, re-signed: the canary, of which the auditor had seen", true, func(f *forger) {
		f.keep(f.log.Size() - 2)
		f.drop(f.at("canary", "", 0))
	}, ledger.ErrFork},
	{"a dropped record, re-signed: the first", true, func(f *forger) { f.drop(0) }, ledger.ErrHistory},
	{"a dropped record, re-signed: a failure", true, func(f *forger) { f.drop(f.at("failure", "films", 0)) }, ledger.ErrHistory},
	{"a dropped record, re-signed: a failure before a backup was taken up", true, func(f *forger) { f.drop(f.at("failure", "music", 1)) }, ledger.ErrHistory},
	{"a dropped record, re-signed: that a job is closed after its last round", true, func(f *forger) { f.drop(f.at("closed", "films", 0)) }, ledger.ErrHistory},
	{"a dropped record, re-signed: the rotation of the key", true, func(f *forger) { f.drop(f.at("key", "", 0)) }, ledger.ErrSignature},
	{"all records dropped", true, func(f *forger) { f.Records, f.Specifications = nil, nil }, ledger.ErrHistory},
	{"reordered records: a release before its charge", true, func(f *forger) {
		f.swap(f.at("attempt", "films", 0), f.at("release", "films", 0))
	}, ledger.ErrHistory},
	{"reordered records of two jobs", false, func(f *forger) {
		f.swap(f.at("attempt", "music", 1), f.at("attempt", "films", 1))
	}, ledger.ErrCheckpoint},
	{"reordered records of two jobs, re-signed, of which the auditor had seen", true, func(f *forger) {
		f.keep(f.log.Size())
		f.swap(f.at("attempt", "music", 1), f.at("attempt", "films", 1))
	}, ledger.ErrFork},
	{"a repeated record: a charge", true, func(f *forger) {
		i := f.at("attempt", "films", 0)
		f.Records = slices.Insert(slices.Clone(f.Records), i, f.Records[i])
	}, ledger.ErrHistory},
	{"a repeated record: a release", true, func(f *forger) {
		i := f.at("release", "films", 0)
		f.Records = slices.Insert(slices.Clone(f.Records), i, f.Records[i])
	}, ledger.ErrHistory},
	{"a repeated record: a job", true, func(f *forger) {
		i := f.at("job", "films", 0)
		f.Records = slices.Insert(slices.Clone(f.Records), i, f.Records[i])
	}, ledger.ErrHistory},
	{"a second beginning", true, func(f *forger) {
		e := f.entry(0).(*ledger.Begun)
		f.insert(f.at("release", "films", 0), e, &e.Stamp)
	}, ledger.ErrHistory},
	{"a back-dated record", true, func(f *forger) {
		alter(f, f.at("release", "films", 1), func(e *ledger.Released) { e.Time -= 86_400_000 })
	}, ledger.ErrHistory},
	{"records re-signed with a key of the forger's", false, func(f *forger) {
		alter(f, f.at("canary", "", 0), func(e *ledger.CanaryMeasured) { e.Lower = 1 })
		forged, _ := testKey(f, 99)
		sign(f, f.Bundle, forged)
	}, ledger.ErrSignature},
	{"a ledger that begins with a key of the forger's", false, func(f *forger) {
		forged, public := testKey(f, 99)
		alter(f, 0, func(e *ledger.Begun) { e.Key = public })
		f.drop(f.at("key", "", 0))
		sign(f, f.Bundle, forged)
	}, ledger.ErrSignature},
	{"an auditor who trusts another key", false, func(f *forger) { _, f.trusted = testKey(f, 98) }, ledger.ErrSignature},
	{"a rotation that a key of the forger's endorsed", false, func(f *forger) {
		forged, public := testKey(f, 99)
		endorsement, err := ledger.Endorse(forged, public)
		if err != nil {
			f.Fatal(err)
		}
		alter(f, f.at("key", "", 0), func(e *ledger.KeyRotated) { e.Key, e.Endorsement = public, endorsement })
		sign(f, f.Bundle, forged)
	}, ledger.ErrSignature},
	{"a rotation back to a key that signed before", true, func(f *forger) {
		first, public := testKey(f, 1)
		endorsement, err := ledger.Endorse(f.signer, public)
		if err != nil {
			f.Fatal(err)
		}
		e := &ledger.KeyRotated{Key: public, Endorsement: endorsement}
		f.insert(len(f.Records)-1, e, &e.Stamp)
		f.signer = first
	}, ledger.ErrSignature},
	{"a rotation to the key that signs", true, func(f *forger) {
		endorsement, err := ledger.Endorse(f.signer, f.public)
		if err != nil {
			f.Fatal(err)
		}
		e := &ledger.KeyRotated{Key: f.public, Endorsement: endorsement}
		f.insert(len(f.Records)-1, e, &e.Stamp)
	}, ledger.ErrSignature},
	{"a forked history, as long as the one that the auditor had seen", true, func(f *forger) {
		f.keep(f.log.Size())
		alter(f, f.at("release", "music", 0), func(e *ledger.Released) { e.Members++ })
	}, ledger.ErrFork},
	{"a truncated ledger under the checkpoint of all of it", false, func(f *forger) { f.Records = f.Records[:19] }, ledger.ErrCheckpoint},
	{"a truncated ledger under the genuine checkpoint of then, after the auditor had seen more", true, func(f *forger) {
		f.keep(f.log.Size())
		f.Records = f.Records[:22]
		for digest := range f.Specifications {
			if !bytes.Contains(bytes.Join(f.Records, nil), []byte(digest.String())) {
				delete(f.Specifications, digest)
			}
		}
	}, ledger.ErrTruncated},
	{"another cluster's ledger in the place of this one", true, func(f *forger) {
		f.keep(2)
		f.seen.Origin = "other.example"
	}, ledger.ErrCheckpoint},

	{"an understated rho", true, func(f *forger) {
		alter(f, f.at("attempt", "films", 0), func(e *ledger.AttemptCharged) { e.Charge--; e.Spent-- })
	}, ledger.ErrHistory},
	{"an understated rho, in the specification too", true, func(f *forger) {
		f.respecify("films", `"charge_nano_rho": "7812508"`, `"charge_nano_rho": "7812499"`)
		alter(f, f.at("attempt", "films", 0), func(e *ledger.AttemptCharged) { e.Charge = 7812499; e.Spent = 7812499 })
	}, ledger.ErrHistory},
	{"an understated sum of what is spent", true, func(f *forger) {
		alter(f, f.at("attempt", "films", 2), func(e *ledger.AttemptCharged) { e.Spent -= e.Charge })
	}, ledger.ErrHistory},
	{"noise that is less than what is charged for", true, func(f *forger) {
		sigma := f.jobs["films"].spec.Releases[0].Sigma
		f.respecify("films", fmt.Sprintf(`"sigma": "%d"`, sigma), fmt.Sprintf(`"sigma": "%d"`, sigma/2))
	}, ledger.ErrHistory},
	{"a release that overstates its noise", true, func(f *forger) {
		alter(f, f.at("release", "films", 0), func(e *ledger.Released) { e.Mechanism.Sigma *= 2 })
	}, ledger.ErrHistory},
	{"a release that understates its clip", true, func(f *forger) {
		alter(f, f.at("release", "films", 0), func(e *ledger.Released) { e.Mechanism.Clip /= 2 })
	}, ledger.ErrHistory},
	{"a release under another trust mode", true, func(f *forger) {
		alter(f, f.at("release", "music", 0), func(e *ledger.Released) { e.Mechanism.Trust = ledger.TrustLocal })
	}, ledger.ErrHistory},
	{"a release that claims amplification by sampling", true, func(f *forger) {
		alter(f, f.at("release", "books", 0), func(e *ledger.Released) { e.Mechanism.Sampler = "poisson 0.01" })
	}, ledger.ErrHistory},
	{"a release that says it cost less", true, func(f *forger) {
		alter(f, f.at("release", "books", 0), func(e *ledger.Released) { e.Charge /= 2 })
	}, ledger.ErrHistory},
	{"a release without its charge", true, func(f *forger) { f.drop(f.at("attempt", "films", 0)) }, ledger.ErrHistory},
	{"a release of an attempt that failed", true, func(f *forger) {
		e := f.entry(f.at("release", "films", 1)).(*ledger.Released)
		e.Attempt = 1
		f.insert(f.at("attempt", "films", 2), e, &e.Stamp)
	}, ledger.ErrHistory},
	{"a round released twice, charged twice", true, func(f *forger) {
		i := f.at("release", "films", 0)
		charge := f.entry(f.at("attempt", "films", 0)).(*ledger.AttemptCharged)
		charge.Attempt, charge.Spent = 2, 2*charge.Charge
		f.insert(i+1, charge, &charge.Stamp)
	}, ledger.ErrHistory},
	{"a budget that is exceeded", true, func(f *forger) {
		f.author = newAuthor(f)
		f.create(terms{"films", 3, 2, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification())
		for attempt := range 6 {
			f.open("films", attempt+1)
			f.fail("films", "an operator gave it up", 0)
		}
		*f.Bundle = *f.bundle(f)
	}, ledger.ErrHistory},
	{"a budget that was raised later", true, func(f *forger) {
		alter(f, f.at("job", "films", 0), func(e *ledger.JobCreated) { e.Budget *= 2 })
	}, ledger.ErrHistory},
	{"a job that hides its state 0", true, func(f *forger) {
		alter(f, f.at("job", "books", 0), func(e *ledger.JobCreated) { e.State = ledger.Digest{} })
	}, ledger.ErrHistory},
	{"a job that hides its state 0, by a clock that stands still", true, func(f *forger) {
		f.freeze()
		alter(f, f.at("job", "books", 0), func(e *ledger.JobCreated) { e.State = ledger.Digest{} })
	}, ledger.ErrHistory},
	{"a job that hides its state 0, in a beginning that is too long", true, func(f *forger) {
		f.freeze()
		alter(f, 0, func(e *ledger.Begun) { e.History = 15 })
		alter(f, f.at("job", "books", 0), func(e *ledger.JobCreated) { e.State = ledger.Digest{} })
	}, ledger.ErrHistory},
	{"a beginning of more records than there are", true, func(f *forger) {
		f.author = newAuthorOf(f, 1000)
		f.create(terms{"films", 3, 2, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification())
		*f.Bundle = *f.bundle(f)
		f.freeze()
	}, ledger.ErrHistory},
	{"a failure whose reason moves the reader's cursor", true, func(f *forger) {
		alter(f, f.at("failure", "films", 0), func(e *ledger.Failed) { e.Why = "\x1b[2J all is well" })
	}, ledger.ErrEntry},
	{"a failure whose reason turns the reader's line around", true, func(f *forger) {
		alter(f, f.at("failure", "films", 0), func(e *ledger.Failed) { e.Why = "\u202ellew si lla" })
	}, ledger.ErrEntry},
	{"a release of fewer than n_min", true, func(f *forger) {
		alter(f, f.at("release", "films", 0), func(e *ledger.Released) { e.Members = 3999 })
	}, ledger.ErrHistory},
	{"a release of more than a round takes", true, func(f *forger) {
		alter(f, f.at("release", "films", 0), func(e *ledger.Released) { e.Members = 5001 })
	}, ledger.ErrHistory},
	{"a round that is computed from another state", true, func(f *forger) {
		alter(f, f.at("attempt", "films", 1), func(e *ledger.AttemptCharged) { e.State = f.jobs["music"].state })
	}, ledger.ErrHistory},
	{"a round that is left out", true, func(f *forger) {
		alter(f, f.at("attempt", "films", 0), func(e *ledger.AttemptCharged) { e.Round = 2 })
	}, ledger.ErrHistory},
	{"an attempt that is left out", true, func(f *forger) {
		alter(f, f.at("attempt", "films", 2), func(e *ledger.AttemptCharged) { e.Attempt = 3 })
	}, ledger.ErrHistory},
	{"an attempt's number used again after a backup was taken up", true, func(f *forger) {
		alter(f, f.at("attempt", "music", 2), func(e *ledger.AttemptCharged) { e.Attempt = 3 })
	}, ledger.ErrHistory},
	{"an attempt's number used again after a backup, by a clock that stands still", true, func(f *forger) {
		f.freeze()
		alter(f, f.at("attempt", "music", 2), func(e *ledger.AttemptCharged) { e.Attempt = 3 })
	}, ledger.ErrHistory},
	{"an era so late that attempts' numbers begin anew", true, func(f *forger) {
		f.author = newAuthorOf(f, 1)
		f.log.Append(&ledger.Restored{Era: 18_446_744_073_710}, f.now) // times 1,000,000: 2^64 + 448,384
		f.create(terms{"films", 3, 2, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification())
		f.open("films", 448_385)
		*f.Bundle = *f.bundle(f)
	}, ledger.ErrHistory},
	{"a charge after the job was closed", true, func(f *forger) {
		i := f.at("attempt", "music", 3)
		e := f.entry(i).(*ledger.AttemptCharged)
		e.Attempt++
		last := f.at("attempt", "books", 1)
		f.insert(last, e, &e.Stamp)
	}, ledger.ErrHistory},
	{"a job closed while it still collects", true, func(f *forger) { f.drop(f.at("failure", "music", 2)) }, ledger.ErrHistory},
	{"a job that was never created", true, func(f *forger) {
		f.drop(f.at("job", "films", 0))
		delete(f.Specifications, f.jobs["films"].digest)
	}, ledger.ErrHistory},
	{"a missing specification", false, func(f *forger) { delete(f.Specifications, f.jobs["films"].digest) }, ledger.ErrBundle},
	{"a changed specification under the old hash", false, func(f *forger) {
		f.Specifications[f.jobs["films"].digest] = append(bytes.Clone(f.specs[f.jobs["films"].digest]), '\n')
	}, ledger.ErrBundle},
	{"a changed specification of a job that goes on under the old one", true, func(f *forger) {
		was := f.jobs["films"].digest
		f.respecify("films", `"n_min": 4000`, `"n_min": 4001`)
		each(f, func(e *ledger.AttemptCharged) {
			if e.Job == "films" {
				e.Specification = was
			}
		})
	}, ledger.ErrHistory},
	{"a specification with a field there twice", true, func(f *forger) {
		f.respecify("films", `"n_min": 4000`, `"n_min": 1, "n_min": 4000`)
	}, ledger.ErrBundle},
	{"another job's specification", true, func(f *forger) {
		f.respecify("films", `"job": "films"`, `"job": "film"`)
	}, ledger.ErrHistory},
	{"a specification that is of no job", false, func(f *forger) {
		f.Specifications[digestOf("{}")] = []byte("{}")
	}, ledger.ErrBundle},
	{"a specification whose contributions do not fit its lattice", true, func(f *forger) {
		f.respecify("films", `"modulus_bits": 48`, `"modulus_bits": 24`)
	}, ledger.ErrBundle},
	{"a specification with a release that is free", true, func(f *forger) {
		f.respecify("films", `"charge_nano_rho": "7812508"`, `"charge_nano_rho": "null"`)
	}, ledger.ErrBundle},
	{"a canary that nobody knows the object of", true, func(f *forger) {
		alter(f, f.at("canary", "", 0), func(e *ledger.CanaryMeasured) { e.How = "" })
	}, ledger.ErrEntry},
	{"a canary that is certain", true, func(f *forger) {
		alter(f, f.at("canary", "", 0), func(e *ledger.CanaryMeasured) { e.Confidence = 1_000_000 })
	}, ledger.ErrEntry},
	{"a release that hides its sum", true, func(f *forger) {
		alter(f, f.at("release", "films", 0), func(e *ledger.Released) { e.Sum = ledger.Digest{} })
	}, ledger.ErrHistory},
	{"a last release that hides its state", true, func(f *forger) {
		alter(f, f.at("release", "films", 2), func(e *ledger.Released) { e.State = ledger.Digest{} })
	}, ledger.ErrHistory},
	{"a full round that is said to have failed for too few", true, func(f *forger) {
		alter(f, f.at("failure", "music", 0), func(e *ledger.Failed) { e.Members, e.Why = 600, "0 contributions of 500" })
	}, ledger.ErrHistory},
	{"a record after the year 9999", true, func(f *forger) {
		alter(f, len(f.Records)-1, func(e *ledger.AttemptCharged) { e.Time = math.MaxInt64 })
	}, ledger.ErrHistory},
	{"an attempt's number that is no whole one", true, func(f *forger) {
		f.rewrite(f.at("attempt", "films", 0), `"attempt":1`, `"attempt":1.0`)
	}, ledger.ErrEntry},
	{"a charge that is no text", true, func(f *forger) {
		f.rewrite(f.at("attempt", "films", 0), `"charge_nano_rho":"7812508"`, `"charge_nano_rho":7812508`)
	}, ledger.ErrEntry},
	{"a clip that is no number", true, func(f *forger) {
		f.rewrite(f.at("release", "films", 0), `"clip":"16777216"`, `"clip":"wide"`)
	}, ledger.ErrEntry},
	{"a specification with a text for a number", true, func(f *forger) {
		f.respecify("films", `"length": 306`, `"length": "306"`)
	}, ledger.ErrBundle},
}

// doubted are tamperings of which verification warns: an honest ledger might be so.
var doubted = []struct {
	name string
	do   func(f *forger)
}{
	{"a canary of one trial", func(f *forger) {
		alter(f, f.at("canary", "", 0), func(e *ledger.CanaryMeasured) { e.Trials = 1 })
	}},
	{"a canary dated after its record", func(f *forger) {
		alter(f, f.at("canary", "", 0), func(e *ledger.CanaryMeasured) { e.Measured = e.Time + 60_001 })
	}},
	{"a specification with a parameter there twice", func(f *forger) {
		f.respecify("films", `"dim": 50`, `"dim": 50, "dim": 51`)
	}},
	{"a specification with a parameter there twice, deep within", func(f *forger) {
		f.respecify("films", `"dim": 50`, `"dim": [{"a": [], "b": {"a": 1, "b": 2, "a": 3}}]`)
	}},
}

// followed is a tampering that a client catches, who has the key and a checkpoint, with
// what it gets from a server.
type followed struct {
	name string
	do   func(f *forger) error
	err  error
}

var followedTamperings = []followed{
	{"a forked history served to half of the clients, to one who saw the other half's", func(f *forger) error {
		honest := checkpointOf(f, f.Records[:20], origin)
		alter(f, f.at("attempt", "films", 2), func(e *ledger.AttemptCharged) { e.Time-- })
		forked := restore(f)
		proof, err := forked.Consistency(20, 26)
		if err != nil {
			f.Fatal(err)
		}
		return honest.Follow(checkpointOf(f, f.Records[:26], origin), proof)
	}, ledger.ErrFork},
	{"a forked history of the same size", func(f *forger) error {
		honest := checkpointOf(f, f.Records, origin)
		alter(f, f.at("release", "music", 0), func(e *ledger.Released) { e.Members++ })
		return honest.Follow(checkpointOf(f, f.Records, origin), nil)
	}, ledger.ErrFork},
	{"a truncated ledger, under the genuine checkpoint of then", func(f *forger) error {
		return checkpointOf(f, f.Records, origin).Follow(checkpointOf(f, f.Records[:20], origin), nil)
	}, ledger.ErrTruncated},
	{"a larger ledger without proof that it extends the smaller", func(f *forger) error {
		return checkpointOf(f, f.Records[:20], origin).Follow(checkpointOf(f, f.Records, origin), nil)
	}, ledger.ErrFork},
	{"a checkpoint signed with a key of the forger's", func(f *forger) error {
		genuine, err := ledger.ParseKey(f.public)
		if err != nil {
			f.Fatal(err)
		}
		forged, _ := testKey(f, 99)
		sign(f, f.Bundle, forged)
		_, err = ledger.OpenCheckpoint(f.Checkpoint, genuine)
		return err
	}, ledger.ErrSignature},
	{"a checkpoint in the old key after a rotation", func(f *forger) error {
		now, err := ledger.ParseKey(f.public)
		if err != nil {
			f.Fatal(err)
		}
		old, _ := testKey(f, 1)
		sign(f, f.Bundle, old)
		_, err = ledger.OpenCheckpoint(f.Checkpoint, now)
		return err
	}, ledger.ErrSignature},
	{"another ledger's checkpoint, signed with this one's key", func(f *forger) error {
		key, err := ledger.ParseKey(f.public)
		if err != nil {
			f.Fatal(err)
		}
		c := checkpointOf(f, f.Records, "other.example")
		signed, err := note.Sign(&note.Note{Text: c.Text()}, f.signer)
		if err != nil {
			f.Fatal(err)
		}
		_, err = ledger.OpenCheckpoint(signed, key)
		return err
	}, ledger.ErrCheckpoint},
	{"a rotation to a key that the old one did not endorse", func(f *forger) error {
		forged, public := testKey(f, 99)
		endorsement, err := ledger.Endorse(forged, public)
		if err != nil {
			f.Fatal(err)
		}
		rotations := []*ledger.KeyRotated{f.entry(f.at("key", "", 0)).(*ledger.KeyRotated), {Key: public, Endorsement: endorsement}}
		_, err = ledger.FollowKeys(f.first, rotations)
		return err
	}, ledger.ErrSignature},
	{"a rotation back to a key that the client followed away from", func(f *forger) error {
		_, public := testKey(f, 1)
		endorsement, err := ledger.Endorse(f.signer, public)
		if err != nil {
			f.Fatal(err)
		}
		_, err = ledger.FollowKeys(f.public, []*ledger.KeyRotated{{Key: public, Endorsement: endorsement}}, f.first)
		return err
	}, ledger.ErrSignature},
	{"a round whose reservation is not in the ledger", func(f *forger) error {
		i := f.at("attempt", "books", 1)
		reservation := f.Records[i]
		c, log := withoutRecord(f, i)
		proof, err := log.Inclusion(c.Size-1, c.Size)
		if err != nil {
			f.Fatal(err)
		}
		return c.Includes(reservation, c.Size-1, proof)
	}, ledger.ErrNotIncluded},
	{"a round whose reservation is to come", func(f *forger) error {
		i := f.at("attempt", "books", 1)
		reservation := f.Records[i]
		c, _ := withoutRecord(f, i)
		return c.Includes(reservation, c.Size, nil)
	}, ledger.ErrNotIncluded},
	{"a reservation whose charge is understated to the client", func(f *forger) error {
		i := f.at("attempt", "books", 1)
		c, log := checkpointOf(f, f.Records, origin), restore(f)
		alter(f, i, func(e *ledger.AttemptCharged) { e.Charge /= 2 })
		proof, err := log.Inclusion(int64(i), c.Size)
		if err != nil {
			f.Fatal(err)
		}
		return c.Includes(f.Records[i], int64(i), proof)
	}, ledger.ErrNotIncluded},
}

func restore(f *forger) *ledger.Log {
	f.Helper()
	log, err := ledger.Restore(f.Records)
	if err != nil {
		f.Fatal(err)
	}
	return log
}

func withoutRecord(f *forger, i int) (ledger.Checkpoint, *ledger.Log) {
	f.drop(i)
	return checkpointOf(f, f.Records, origin), restore(f)
}

// TestTampering applies each tampering to an ordinary ledger, and holds that it is
// caught, by which error, and with which message: TAMPERING.md. `-update` writes it anew.
func TestTampering(t *testing.T) {
	var table strings.Builder
	table.WriteString(tableHead)
	row := 0
	add := func(t *testing.T, name, signed, who string, err, want error) {
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("the message has lines: %q", err)
		}
		row++
		message := longHex.ReplaceAllString(strings.ReplaceAll(err.Error(), "|", `\|`), "$1...")
		fmt.Fprintf(&table, "| %d | %s | %s | %s | %s |\n", row, name, signed, who, message)
	}
	for _, c := range verifiedTamperings {
		t.Run(c.name, func(t *testing.T) {
			f := newForger(t)
			if err := f.verify(); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.do(f)
			signed := "no"
			if c.signed {
				signed = "yes"
				f.resign()
			}
			add(t, c.name, signed, "`audit verify`", f.verify(), c.err)
		})
	}
	for _, c := range doubted {
		t.Run(c.name, func(t *testing.T) {
			f := newForger(t)
			c.do(f)
			f.resign()
			h, err := ledger.Verify(f.Bundle, f.trusted, f.seen)
			if err != nil || len(h.Doubts) != 1 {
				t.Fatalf("%+v, %v, want a doubt", h, err)
			}
			warning := errors.New(h.Doubts[0].String())
			add(t, c.name, "yes", "`audit verify`, which warns", warning, warning)
		})
	}
	for _, c := range followedTamperings {
		t.Run(c.name, func(t *testing.T) { add(t, c.name, "", "a client", c.do(newForger(t)), c.err) })
	}
	if *update {
		if err := os.WriteFile("TAMPERING.md", []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("TAMPERING.md")
	if err != nil {
		t.Fatal(err)
	}
	if table.String() != string(want) {
		t.Errorf("TAMPERING.md is not what the tamperings give; -update writes it:\n%s", table.String())
	}
}

// longHex is a digest or a key.
var longHex = regexp.MustCompile(`\b([0-9a-f]{8})[0-9a-f]{56}\b`)

const tableHead = `# Tampering

What a ledger's operator, or whoever gets between, can do to it, who catches it, and the message. Each row is applied by code to a ledger that has every kind of record (` + "`go test ./dp/ledger -run Tampering`" + `, and ` + "`-update`" + ` writes this page). Where the third column says yes, the genuine key signs what came out, so that only the meaning of the records, or what the auditor had seen, can give it away. Digests are shortened.

| | tampering | signed anew | caught by | message |
|---|---|---|---|---|
`
