package client

// FailAt has a Device ask f before every step of a change to its folder.
func FailAt(c *Config, f func(step, path string) error) { c.before = f }

// Decoders of the private files.
func DecodeRecord(data []byte) ([]byte, error) {
	r, err := decodeRecord(data)
	if err != nil {
		return nil, err
	}
	return r.encode(), nil
}

func DecodeUpdate(data []byte) ([]byte, error) {
	r, err := decodeUpdate(data)
	if err != nil {
		return nil, err
	}
	return encodeUpdate(r)
}

func DecodePersonal(data []byte) ([]byte, error) {
	p, _, err := decodePersonal(data)
	if err != nil {
		return nil, err
	}
	return p.encode(), nil
}
