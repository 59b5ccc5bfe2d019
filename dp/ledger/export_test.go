package ledger

import "github.com/undertone-fl/undertone/dp/accounting"

// Cost is what Verify holds a charge against.
func (m *Mechanism) Cost(parts int) (accounting.NanoRho, bool) { return m.cost(parts) }
