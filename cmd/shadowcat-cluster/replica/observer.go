package replica

import (
	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// observer counts what the proxy did and passes it on.
type observer struct {
	metrics *admin.Metrics
	next    proxy.Observer // may be nil
}

// RequestDone is called once for each finished request.
func (o observer) RequestDone(info proxy.RequestInfo) {
	o.metrics.RequestDone(admin.Request{
		Era:        string(info.Era),
		HTTPMethod: info.Method,
		RPCMethod:  info.RPCMethod,
		Status:     info.Status,
		Duration:   info.Duration,
		Denied:     info.Denied,
	})
	if o.next != nil {
		o.next.RequestDone(info)
	}
}
