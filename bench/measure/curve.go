package measure

// Curve is how latencies were spread, of what was compared.
type Curve struct {
	Row   string `json:"row"`
	Title string `json:"title"`
	Lines []Line `json:"lines"`
}

// Line is one of the things compared.
type Line struct {
	Name      string     `json:"name"`
	Calls     int64      `json:"calls"`
	Quantiles []Quantile `json:"quantiles"`
}

// Quantile is the latency that a share of all calls did not exceed.
type Quantile struct {
	Share        float64 `json:"share"`
	Milliseconds float64 `json:"ms"`
}

// shares are those that a line tells.
var shares = []float64{0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999}

// Line returns the quantiles of all calls, but for those that so few calls are behind that they say nothing.
func (l *Latencies) Line(name string) Line {
	line := Line{Name: name, Calls: l.Calls()}
	for _, share := range shares {
		if float64(l.Calls())*(1-share) < 5 {
			break
		}
		line.Quantiles = append(line.Quantiles, Quantile{Share: share, Milliseconds: l.Quantile(share).Seconds() * 1000})
	}
	return line
}

// NewLatencies returns latencies of no call yet, to Merge others into.
func NewLatencies() *Latencies { return &Latencies{histogram: newHistogram()} }
