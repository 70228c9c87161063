package replica

import (
	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// proxyObserver counts what the proxy does.
type proxyObserver struct {
	metrics     *admin.Metrics
	requestDone func(proxy.RequestInfo) // is told, too; may be nil
}

// RequestDone is called once for each finished request.
func (o proxyObserver) RequestDone(info proxy.RequestInfo) {
	o.metrics.RequestDone(admin.Request{
		Era:        string(info.Era),
		HTTPMethod: info.Method,
		RPCMethod:  info.RPCMethod,
		Upstream:   info.Upstream,
		Status:     info.Status,
		Duration:   info.Duration,
		Denied:     info.Denied,
		Refused:    info.Refused,
		Limit:      info.Limit,
	})
	if o.requestDone != nil {
		o.requestDone(info)
	}
}

// RecoveryDone counts an attempt to make a session anew that its upstream had lost.
func (o proxyObserver) RecoveryDone(outcome proxy.Recovery) { o.metrics.RecoveryDone(string(outcome)) }

// ResumptionDone counts a GET that went on with a stream.
func (o proxyObserver) ResumptionDone(outcome proxy.Resumption) {
	o.metrics.ResumptionDone(string(outcome))
}
