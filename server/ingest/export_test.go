package ingest

// Queued is how many contributions wait for an attempt's next batch.
func (in *Ingest) Queued(k Key) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if a := in.attempts[k]; a != nil {
		return len(a.queue)
	}
	return 0
}
