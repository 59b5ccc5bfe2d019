package quota_test

import (
	"testing"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/internal/quota"
)

func TestQuota(t *testing.T) {
	ada, bob := identity.Identity{Role: identity.Auditor, Name: "ada"}, identity.Identity{Role: identity.Auditor, Name: "bob"}
	q := quota.New(2)
	enter := func(who identity.Identity, want bool) (leave func()) {
		t.Helper()
		leave, ok := q.Enter(who)
		if ok != want {
			t.Errorf("%v is let in: %v", who, ok)
		}
		return leave
	}
	first := enter(ada, true)
	enter(ada, true)
	enter(ada, false)
	enter(bob, true)
	first()
	enter(ada, true)
	enter(ada, false)
}
