package rounds

import (
	"math"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/undertone-fl/undertone/aggregation"
)

func (m *Machine) collect(c Collect) *Refusal {
	if len(c.Members) == 0 {
		return refuse(Malformed, "no members")
	}
	j, a, refusal := m.attempt(c.Job, c.Round, c.Attempt)
	if refusal != nil {
		return refusal
	}
	// Whom the sum has already comes first: the proposer of a batch whose
	// outcome it does not know learns that it was added, also where that batch
	// was what closed the round. A failed attempt has no sum.
	if members := j.membersOf(c.Round, c.Attempt); members != nil && a.Phase != Failed {
		if counted := m.counted(members, c.Members); len(counted) > 0 {
			refusal := refuse(Counted, "%d of %d members are in the sum of %v", len(counted), len(c.Members), *a)
			refusal.Counted = counted
			return refusal
		}
	}
	if a.Phase != Collecting {
		return a.over()
	}
	if room := j.spec.RoundSize - a.Members; len(c.Members) > room {
		refusal := refuse(Full, "%d members, and room for %d", len(c.Members), room)
		refusal.Room = room
		return refusal
	}
	if c.Sum.Size != j.sumSize() {
		return refuse(Malformed, "a sum of %d bytes, want %d", c.Sum.Size, j.sumSize())
	}
	sum, refusal := j.staged.resolve(c.Job, c.Sum)
	if refusal != nil {
		return refusal
	}
	if refusal := m.enlist(j.members, c.Members); refusal != nil {
		return refusal
	}
	if err := aggregation.AddPacked(j.sum, sum, j.spec.Width(), math.MaxUint64); err != nil {
		panic(err) // the length was checked, and everything is in range
	}
	a.Members += len(c.Members)
	j.staged.drop(c.Job, c.Sum.Digest)

	m.effect.attempt("collect", a)
	m.effect.numbers(uint64(a.Members), uint64(len(m.clients.order)))
	m.effect.digest(c.Sum.Digest)
	if a.Members == j.spec.RoundSize {
		m.close(j)
	}
	return nil
}

// counted returns the indices of the clients that are members already.
func (m *Machine) counted(members *roaring.Bitmap, ids []ClientID) (counted []int) {
	for i, id := range ids {
		if n, known := m.clients.numbers[id]; known && members.Contains(n) {
			counted = append(counted, i)
		}
	}
	return counted
}

// enlist makes clients members, all or none. None of them is one yet.
func (m *Machine) enlist(members *roaring.Bitmap, ids []ClientID) *Refusal {
	before := len(m.clients.order)
	if uint64(before)+uint64(len(ids)) > math.MaxUint32 {
		return refuse(Malformed, "more clients than can be numbered")
	}
	m.batch.Clear()
	for i, id := range ids {
		if !m.batch.CheckedAdd(m.clients.add(id)) {
			m.clients.truncate(before)
			return refuse(Malformed, "member %d is there twice", i)
		}
	}
	members.Or(&m.batch)
	return nil
}
