package auth_test

import (
	"sync"
	"testing"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

func TestFewVerifiedTokensAreRemembered(t *testing.T) {
	t.Parallel()
	for _, most := range []int{2, 10, 1000} {
		remembered, isUsedOne := auth.RememberedAfter(10_000, most)
		if remembered > most || remembered < most/2 {
			t.Errorf("%d are remembered, want %d to %d", remembered, most/2, most)
		}
		if !isUsedOne {
			t.Errorf("of %d the one that was always in use is forgotten", most)
		}
	}
}

func TestManyRequestsAtOnceAreFromWhomTheySay(t *testing.T) {
	t.Parallel()
	g := gate(t)
	alice := mustAdmit(t, g, bearing(ecKey().token(nil)))
	bob := mustAdmit(t, g, bearing(ecKey().token(object{"sub": "bob"})))
	var all sync.WaitGroup
	for i := range 64 {
		sub, want := "alice", alice
		if i%2 == 1 {
			sub, want = "bob", bob
		}
		token := ecKey().token(object{"sub": sub, "jti": i / 4})
		all.Go(func() {
			for range 10 {
				identity, err := g.Authenticate(bearing(token))
				if err != nil || identity.Principal != want.Principal {
					t.Errorf("%s is %+v, %v", sub, identity, err)
				}
			}
		})
	}
	all.Wait()
}
