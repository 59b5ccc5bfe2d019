package rounds_test

import (
	"reflect"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// What comes of a backup: attempts that were open failed, their charge spent, jobs
// paused, and numbers that no attempt had before - restored twice over, too, and
// through snapshots of the machine that went on.
func TestAnew(t *testing.T) {
	before := richMachine(t)
	s := snapshot(before)
	for era := 1; era <= 2; era++ {
		kept, err := rounds.Backup(s)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = rounds.Anew(kept, 0, nil); err != nil {
			t.Fatal(err)
		}
		m, err := rounds.Restore(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range m.Jobs() {
			was, _ := before.Job(name)
			job, _ := m.Job(name)
			if job.State != rounds.Paused || job.Spent < was.Spent || job.Released != was.Released {
				t.Errorf("%s: %v, %d spent of %d before, %d released", name, job.State, job.Spent, was.Spent, job.Released)
			}
			for _, a := range job.Attempts {
				if a.Phase != rounds.Released && a.Phase != rounds.Failed || a.Attempt >= job.Next {
					t.Errorf("%s: %v is %v, the next is %d", name, a, a.Phase, job.Next)
				}
			}
		}
		if n := len(m.Sum("songs")); n > 0 {
			t.Errorf("a sum of %d numbers is there", n)
		}
		films, _ := m.Job("films")
		if films.Next != era*1_000_000+1 {
			t.Errorf("in era %d attempts begin at %d", era, films.Next)
		}
		apply(t, m, rounds.Run{Job: "films"})
		apply(t, m, rounds.OpenRound{Job: "films", Round: 1, Attempt: films.Next})
		s = snapshot(m)
		again, err := rounds.Restore(s)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(snapshot(again), s) {
			t.Error("restored, and its snapshot differs")
		}
	}
}

// An attempt of an era that has not begun cannot have been opened.
func TestRestoreRefusesEras(t *testing.T) {
	for _, spoil := range []func(s *rounds.Snapshot){
		func(s *rounds.Snapshot) { s.Era = -1 },
		func(s *rounds.Snapshot) { s.Era = 2001 },
		func(s *rounds.Snapshot) { s.Jobs[1].Attempts[1].Attempt = 1_000_001 },
		func(s *rounds.Snapshot) { s.Era, s.Jobs[1].Attempts[1].Attempt = 1, 1_000_002 },
	} {
		s := snapshot(richMachine(t))
		spoil(s)
		if _, err := rounds.Restore(s); err == nil {
			t.Error("restored")
		}
	}
}
