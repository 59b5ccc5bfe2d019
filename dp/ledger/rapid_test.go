package ledger_test

import "flag"

// Properties are checked on the same inputs in every run; -rapid.seed=0 draws
// others.
func init() {
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}
