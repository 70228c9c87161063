package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// GrantRequests implements [cluster.RateStore].
func (s *Store) GrantRequests(ctx context.Context, p cluster.Principal, want int) (int, error) {
	if p == "" || !p.Valid() {
		return 0, fmt.Errorf("granting requests: %q is no principal", string(p))
	}
	rate := s.cfg.StatelessRatePerPrincipal
	if rate == 0 {
		return max(want, 1), nil
	}
	reply, err := s.run(ctx, call{
		script: rateGrant,
		keys:   []string{principalRequestsKey(s.prefix, p)},
		args:   []any{intervalMicros(rate), rate, max(want, 1)},
	})
	if err != nil {
		return 0, err
	}
	if len(reply) != grantParts {
		return 0, unavailable(errMalformedReply)
	}
	var d decoder
	granted, wait := int(d.number(reply[0])), d.number(reply[1])
	if d.err != nil {
		return 0, unavailable(d.err)
	}
	if granted == 0 {
		return 0, &cluster.LimitError{
			Limit: "stateless_rate_per_principal", RetryAfter: max(duration(wait, time.Microsecond), time.Millisecond), Err: cluster.ErrRateLimited,
		}
	}
	return granted, nil
}

// grantParts is how many parts rate_grant answers.
const grantParts = 2
