package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/undertone-fl/undertone/client/local"
)

// personal is the user's own part of a job's model, and the released model that
// it was fitted to.
type personal struct {
	Spec    digest `json:"spec"`
	Version int    `json:"version"`
	State   digest `json:"state"`
	Samples int    `json:"samples"` // that it was fitted to
	Own     []byte `json:"own"`     // local.Personal's own encoding
}

const (
	personalMagic   = "utdp"
	personalVersion = 1
)

func (p *personal) encode() []byte {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers and bytes
	}
	return seal(personalMagic, personalVersion, body)
}

// decodePersonal fails with ErrCorrupt or ErrVersion.
func decodePersonal(data []byte) (*personal, *local.Personal, error) {
	_, body, err := unseal(personalMagic, personalVersion, data)
	if err != nil {
		return nil, nil, err
	}
	p, own := new(personal), new(local.Personal)
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil || d.More() || p.Version < 0 || p.Samples < 0 {
		return nil, nil, fmt.Errorf("%w: no personal model (%v)", ErrCorrupt, err)
	}
	if err := own.UnmarshalBinary(p.Own); err != nil {
		return nil, nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return p, own, nil
}

// readPersonal fails with ErrNoModel where there is no file.
func readPersonal(path string) (*personal, *local.Personal, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, ErrNoModel
	}
	if err != nil {
		return nil, nil, err
	}
	p, own, err := decodePersonal(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, own, nil
}
