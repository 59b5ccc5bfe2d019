package ingest

import "github.com/undertone-fl/undertone/aggregation/rounds"

// Queued is how many contributions wait for an attempt's next batch.
func (in *Ingest) Queued(k Key) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if a := in.attempts[k]; a != nil {
		return len(a.queue)
	}
	return 0
}

// Reserve is reserve.
func (in *Ingest) Reserve(client rounds.ClientID, n, least int64) error {
	return in.reserve(client, n, least)
}
