package pages

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/ledger/report"
	"github.com/undertone-fl/undertone/server/notary"
)

// Ledger is what an audit is about; *notary.Notary is one.
type Ledger interface {
	Head() (*notary.Head, error)
	Bundle() (*ledger.Bundle, error)
}

// books keeps the report of the ledger. A ledger of one size has one report, so that is
// computed once for each size; and as verifying a long ledger takes seconds, again only
// after ten times as long as it took. A page says which size it is of.
type books struct {
	ledger Ledger

	latest atomic.Pointer[audit]
	mu     sync.Mutex // held while one is computed
}

// audit is a report of the ledger at one size. It never changes.
type audit struct {
	*report.Report
	History *ledger.History
	size    int64
	due     time.Time // when the next one may be computed

	mu       sync.Mutex
	accounts map[string]*account // drawn so far
}

// audit returns the report of the ledger as it is, or as it was a little before. Fails
// with notary.ErrNoLedger, notary.ErrNoKey, or what is wrong with the ledger, a
// *ledger.Fault.
func (b *books) audit() (*audit, error) {
	head, err := b.ledger.Head()
	if err != nil {
		return nil, err
	}
	current := func() *audit {
		if a := b.latest.Load(); a != nil && (a.size >= head.Checkpoint.Size || time.Now().Before(a.due)) {
			return a
		}
		return nil
	}
	if a := current(); a != nil {
		return a, nil
	}
	if a := b.latest.Load(); !b.mu.TryLock() {
		if a != nil {
			return a, nil // somebody computes the next
		}
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	if a := current(); a != nil {
		return a, nil
	}
	start := time.Now()
	a, err := newAudit(b.ledger)
	if err != nil {
		return nil, err
	}
	a.due = time.Now().Add(10 * time.Since(start))
	b.latest.Store(a)
	return a, nil
}

func newAudit(l Ledger) (*audit, error) {
	head, err := l.Head()
	if err != nil {
		return nil, err
	}
	bundle, err := l.Bundle()
	if err != nil {
		return nil, err
	}
	// By the key that the ledger itself names: that it is the right one is for an auditor
	// to know, who has it from elsewhere.
	h, err := ledger.Verify(bundle, head.Key, ledger.Checkpoint{})
	if err != nil {
		return nil, err
	}
	r, err := report.New(h, bundle.Checkpoint)
	if err != nil {
		return nil, err
	}
	r.MadeAt(time.Now(), h)
	return &audit{Report: r, History: h, size: h.Checkpoint.Size, accounts: make(map[string]*account)}, nil
}

// account returns a job's account, nil if the ledger has no such job.
func (a *audit) account(job string) (*account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ready := a.accounts[job]; ready != nil {
		return ready, nil
	}
	for i := range a.Jobs {
		if a.Jobs[i].Name == job {
			made, err := newAccount(&a.Jobs[i])
			if err == nil {
				a.accounts[job] = made
			}
			return made, err
		}
	}
	return nil, nil
}
