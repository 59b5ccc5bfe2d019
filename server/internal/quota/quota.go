// Package quota bounds how many requests of a kind, which take long, an identity has at
// a time: more are refused, and nobody else notices.
package quota

import (
	"sync"

	"github.com/undertone-fl/undertone/proto/identity"
)

// Quota is what each identity may have at a time.
type Quota struct {
	most int

	mu  sync.Mutex
	now map[identity.Identity]int
}

// New returns a quota of so many.
func New(most int) *Quota { return &Quota{most: most, now: make(map[identity.Identity]int)} }

// Most is how many it is.
func (q *Quota) Most() int { return q.most }

// Enter admits a request until leave is called, once; false if there are as many as
// there may be.
func (q *Quota) Enter(who identity.Identity) (leave func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.now[who] >= q.most {
		return nil, false
	}
	q.now[who]++
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.now[who]--; q.now[who] == 0 {
			delete(q.now, who)
		}
	}, true
}
