package client

// FailAt has a Device ask f before every step of a change to its folder.
func FailAt(c *Config, f func(step, path string) error) { c.before = f }
