package rounds

import "crypto/sha256"

// ClientID is a client to the machine: the first half of the SHA-256 of its
// name, so that a million of them take 16 MB, and a round's members a bit each.
type ClientID [16]byte

// ClientOf returns the ClientID of a name.
func ClientOf(name string) ClientID {
	digest := sha256.Sum256([]byte(name))
	return ClientID(digest[:len(ClientID{})])
}

// registry numbers clients from 0 on, in the order in which they first take
// part, so that a round's members are a dense bitmap. A number is never
// given to another client, and order is only ever appended to: a prefix of it
// may be shared.
type registry struct {
	numbers map[ClientID]uint32
	order   []ClientID
}

// add returns the client's number, a new one if it has none.
func (r *registry) add(id ClientID) uint32 {
	n, known := r.numbers[id]
	if !known {
		n = uint32(len(r.order))
		r.numbers[id] = n
		r.order = append(r.order, id)
	}
	return n
}

// truncate forgets all but the first n clients.
func (r *registry) truncate(n int) {
	for _, id := range r.order[n:] {
		delete(r.numbers, id)
	}
	r.order = r.order[:n]
}
