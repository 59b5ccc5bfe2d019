package client

import (
	"errors"
	"fmt"

	"github.com/undertone-fl/undertone/client/local"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// upToDate reports whether a job is over, and the personal model that of its end.
func (d *Device) upToDate(job string) bool {
	j := d.record.Load().Jobs[job]
	if j == nil || j.Released < j.Rounds {
		return false
	}
	f, err := d.model(job)
	return err == nil && f.version == j.Rounds
}

// refresh fetches a job's latest release, and fits the personal model to it.
func (s *syncing) refresh(job string, j *JobSummary) error {
	known := s.record.Load().Jobs[job]
	var spec *jobSpec
	var err error
	if known != nil {
		spec, err = s.spec(job, known.Spec)
	} else if spec, err = s.library.fetchSpec(func() ([]byte, error) { return s.servers.spec(s.ctx, job) }); err == nil {
		spec, err = s.spec(job, spec.digest)
	}
	if err != nil {
		return err
	}
	for {
		head, err := s.servers.latest(s.ctx, job, s.index)
		if err != nil {
			return err
		}
		if len(head.GetDigest()) != len(digest{}) || uint64(head.GetVersion()) > uint64(len(spec.Releases)) {
			return fmt.Errorf("%w: a malformed answer for the latest model", ErrDigest)
		}
		version := int(head.GetVersion())
		r, next, err := s.state(spec, version, digest(head.GetDigest()), head.GetSize())
		var refused *RefusedError
		if errors.As(err, &refused) && refused.Reason == undertonev1.Reason_REASON_SUPERSEDED {
			continue // a later one was released meanwhile
		}
		if err != nil {
			return err
		}
		return also(s.keep(next), s.fit(r, j))
	}
}

// fit fits the personal model to a release, unless it is fitted to that.
func (s *syncing) fit(r *release, j *JobSummary) error {
	if f, err := s.model(r.spec.Job); err == nil && f.version >= r.version {
		return nil
	}
	samples, err := s.refit(r)
	if j.Samples == nil {
		j.Samples = samples
	}
	if err != nil {
		return err
	}
	j.Updated = true
	if s.cfg.Library != nil {
		return nil // others may need what this device does not
	}
	keep := map[digest]bool{}
	for name, known := range s.record.Load().Jobs {
		keep[known.Spec], keep[known.State] = true, true
		if f, err := s.model(name); err == nil {
			keep[f.digest] = true
		}
	}
	return s.library.prune(keep)
}

// Fit fits the personal model of a job to the samples as they are now, and to the
// release that it belongs to. It needs no network; after Sync brought a new
// release it is not needed. Fails with the errors of Predict, of Config.Samples
// and of local.Solver.
func (d *Device) Fit(job string) error {
	if d.cfg.Offline {
		return ErrClosed
	}
	f, err := d.model(job)
	if err != nil {
		return err
	}
	samples, err := d.refit(f.release)
	return also(samples, err)
}

// refit makes and stores a personal model for a release. Where the samples are
// unusable, which it returns as the first error, it is the shared part alone.
func (d *Device) refit(r *release) (samples, err error) {
	d.fitting.Lock()
	defer d.fitting.Unlock()
	r.spec.equip(&d.solver)
	data, samples := d.cfg.Samples(r.spec.Job, r.Config.Dim)
	var fit *local.Fit
	if samples == nil {
		fit, samples = d.solver.Solve(&r.Model, data)
	}
	if samples != nil {
		data = local.Samples{}
		if fit, err = d.solver.Solve(&r.Model, data); err != nil {
			return samples, err
		}
	}
	own := fit.Personal(data.Columns)
	encoded, err := own.MarshalBinary()
	if err != nil {
		return samples, err
	}
	p := personal{Spec: r.spec.digest, Version: r.version, State: r.digest, Samples: len(data.Y), Own: encoded}
	if err := d.files.write(d.modelPath(r.spec.Job), p.encode()); err != nil {
		return samples, err
	}
	d.predicting.Lock()
	defer d.predicting.Unlock()
	d.fitted[r.spec.Job] = &fitted{r, own}
	return samples, nil
}
