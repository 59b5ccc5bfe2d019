package population

import (
	"math"
	"math/rand/v2"
	"slices"
)

// split is the rows of a file, by user: first those to train on, then those
// held out.
type split struct {
	order []int32 // of the file's rows
	start []int   // of each user in order, and the end
	cut   []int   // where each user's held-out rows begin in order
}

func (s *split) Len() int            { return len(s.cut) }
func (s *split) train(i int) []int32 { return s.order[s.start[i]:s.cut[i]] }
func (s *split) test(i int) []int32  { return s.order[s.cut[i]:s.start[i+1]] }

// newSplit divides the rows of each user, of whom keys holds a hash and users
// tells whose each row is. A user's rows are shuffled by a stream that only
// the seed and the user's key decide, so that other users in the file change
// nothing. Either part is then put in the given order.
func newSplit(users []int32, keys []uint64, train float64, seed uint64, order func(a, b int32) int) split {
	s := split{order: make([]int32, len(users)), start: make([]int, len(keys)+1), cut: make([]int, len(keys))}
	for _, u := range users {
		s.start[u+1]++
	}
	for u := range keys {
		s.start[u+1] += s.start[u]
	}
	copy(s.cut, s.start) // for now, where the user's next row goes
	for row, u := range users {
		s.order[s.cut[u]] = int32(row)
		s.cut[u]++
	}
	for u, key := range keys {
		rows := s.order[s.start[u]:s.start[u+1]]
		rand.New(rand.NewPCG(seed, key)).Shuffle(len(rows), func(a, b int) { rows[a], rows[b] = rows[b], rows[a] })
		n := trainCount(len(rows), train)
		slices.SortFunc(rows[:n], order)
		slices.SortFunc(rows[n:], order)
		s.cut[u] = s.start[u] + n
	}
	return s
}

// trainCount is how many of m rows are to train on: the count or fraction
// asked for, but at least 1, and leaving at least 1 unless that is all.
func trainCount(m int, train float64) int {
	if train < 1 {
		train = math.Round(train * float64(m))
	}
	return max(1, int(min(train, float64(m-1))))
}
