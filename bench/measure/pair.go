package measure

import "context"

// Arm measures one thing once.
type Arm func(ctx context.Context) (float64, error)

// Pair measures the subject between two measurements of its like: base and control are two of a kind, such as two bare proxies.
// Every other turn runs backwards, so that what the machine does by and by favours neither. The value is the subject over the mean
// of the other two, which takes out what changes evenly; the control is one of them over the other.
func Pair(ctx context.Context, turn int, base, subject, control Arm) (Sample, error) {
	first, last := base, control
	if turn%2 == 1 {
		first, last = control, base
	}
	var measured [3]float64
	for i, arm := range []Arm{first, subject, last} {
		value, err := arm(ctx)
		if err != nil {
			return Sample{}, err
		}
		measured[i] = value
	}
	before, after := measured[0], measured[2]
	if turn%2 == 1 {
		before, after = after, before
	}
	return Sample{Value: 2 * measured[1] / (before + after), Control: after / before}, nil
}
