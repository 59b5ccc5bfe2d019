package rounds

import (
	"crypto/sha256"
	"encoding/binary"
)

// effect is what a command changed: a list of words and numbers that is
// unambiguous, as a word fixes how many numbers follow it. Texts for people
// are left out, so that nodes of two versions may word them differently.
type effect []byte

func (e *effect) word(s string) { *e = append(append(*e, byte(len(s))), s...) }

func (e *effect) numbers(x ...uint64) {
	for _, v := range x {
		*e = binary.LittleEndian.AppendUint64(*e, v)
	}
}

func (e *effect) digest(d Digest) { *e = append(*e, d[:]...) }

func (e *effect) attempt(word string, a *Attempt) {
	e.word(word)
	e.numbers(uint64(a.Round), uint64(a.Attempt))
}

// record is a record of the ledger, the size-th.
func (e *effect) record(size int64, record []byte) {
	e.word("record")
	e.numbers(uint64(size))
	e.digest(sha256.Sum256(record))
}

// refusal makes r the effect.
func (e *effect) refusal(r *Refusal) {
	*e = (*e)[:0]
	e.word("refused")
	e.numbers(uint64(r.Reason), uint64(r.Room), uint64(len(r.Counted)))
	for _, i := range r.Counted {
		e.numbers(uint64(i))
	}
}

func (e effect) sum() Digest { return sha256.Sum256(e) }
