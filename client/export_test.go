package client

import "os"

// FailAt has a Device ask f before every step of a change to its folder.
func FailAt(c *Config, f func(step, path string) error) { c.before = f }

// Downgrade writes a record as it was before there were ledgers.
func Downgrade(path string) error {
	r, err := readRecord(path)
	if err != nil {
		return err
	}
	r.Ledger, r.Former = nil, nil
	for name := range r.Jobs {
		for i := range r.job(name).Attempts {
			r.Jobs[name].Attempts[i].Reserved = 0
		}
	}
	_, body, err := unseal(recordMagic, recordVersion, r.encode())
	if err != nil {
		return err
	}
	return os.WriteFile(path, seal(recordMagic, 1, body), 0o600)
}
