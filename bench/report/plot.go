package report

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
)

// Colours that people who see few colours tell apart, too (Okabe and Ito).
var (
	blue   = color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}
	orange = color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff}
	green  = color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}
	pink   = color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff}
	grey   = color.RGBA{R: 0x99, G: 0x99, B: 0x99, A: 0xff}
	pale   = color.RGBA{R: 0xe4, G: 0xe4, B: 0xe4, A: 0xff}

	palette = []color.Color{grey, blue, orange, green, pink}
)

// Chart is a diagram of lines.
type Chart struct {
	Title, X, Y string
	// LogX and LogY make an axis logarithmic. Then all its values must be greater than 0.
	LogX, LogY bool
	// FromZero has the Y axis begin at 0.
	FromZero bool
	// Ticks are the marks of the X axis and what is written there; nil: numbers.
	Ticks  []plot.Tick
	Series []Series
}

// Series is one line of a chart.
type Series struct {
	Name   string
	Points plotter.XYs
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Title.Padding = title, vg.Points(8)
	p.Legend.Padding = vg.Points(2)
	for _, style := range []*font.Font{
		&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font,
	} {
		style.Typeface, style.Variant = "Liberation", "Sans"
	}
	return p
}

// Write draws the chart into an SVG file.
func (c Chart) Write(file string) error {
	p := newPlot(c.Title)
	p.X.Label.Text, p.Y.Label.Text = c.X, c.Y
	if c.LogX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
	}
	if c.LogY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	}
	if c.Ticks != nil {
		p.X.Tick.Marker = plot.ConstantTicks(c.Ticks)
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(grid())
	for i, s := range c.Series {
		line, points, err := plotter.NewLinePoints(s.Points)
		if err != nil {
			return err
		}
		line.Color, line.Width = palette[i%len(palette)], vg.Points(1.8)
		points.Color, points.Shape, points.Radius = line.Color, draw.CircleGlyph{}, vg.Points(2.2)
		p.Add(line, points)
		p.Legend.Add(s.Name, line, points)
	}
	if c.FromZero {
		p.Y.Min = 0
	}
	if c.LogY { // room for the legend
		p.Y.Max *= 6
	} else {
		p.Y.Max += 0.2 * (p.Y.Max - p.Y.Min)
	}
	return save(p, 18*vg.Centimeter, 11*vg.Centimeter, file)
}

// decades marks a logarithmic axis at 1, 2 and 5, ten times and a tenth of that, and so on.
type decades struct{}

// Ticks implements [plot.Ticker].
func (decades) Ticks(from, to float64) []plot.Tick {
	var ticks []plot.Tick
	for decade := math.Pow(10, math.Floor(math.Log10(from))); decade <= to; decade *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if value := n * decade; value >= from && value <= to {
				ticks = append(ticks, plot.Tick{Value: value, Label: tick(value, decade)})
			}
		}
	}
	return ticks
}

// tick writes a value of a decade: 0.05, 2, 500, 10k, 1M.
func tick(value, decade float64) string {
	unit := ""
	switch {
	case value >= 999_999: // decades are not exact
		value, decade, unit = value/1e6, decade/1e6, "M"
	case value >= 9999:
		value, decade, unit = value/1e3, decade/1e3, "k"
	}
	return strconv.FormatFloat(value, 'f', max(0, -int(math.Floor(math.Log10(decade)+1e-9))), 64) + unit
}

func grid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = pale, pale
	return g
}

// save writes a plot as SVG, whose fonts are there on every system.
func save(p *plot.Plot, width, height vg.Length, file string) error {
	canvas := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(4), -vg.Points(16), vg.Points(4), -vg.Points(4))) // what is written at an edge is wider
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return err
	}
	text := bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;"))
	return os.WriteFile(file, text, 0o644) //nolint:gosec // results are for everybody
}

// goals draws how far each figure is from its goal: left of the line it is kept.
func (r Report) goals(file string) error {
	judged := slices.DeleteFunc(slices.Clone(r.Results), func(m measure.Result) bool { return m.Goal == 0 || len(m.Samples) == 0 })
	slices.Reverse(judged) // the first is on top
	if len(judged) == 0 {
		return nil
	}
	p := newPlot("Measured over goal, medians and all pairs: left of the line the goal is kept")
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
	p.X.Label.Text = "blue: kept    orange: missed    grey: not judged in this run"
	names := make([]string, len(judged))
	p.Add(grid())
	for i, m := range judged {
		names[i] = m.Name
		if err := goal(p, float64(i), m); err != nil {
			return err
		}
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = min(p.X.Min, 0.1)*0.9, max(p.X.Max, 2)*1.1
	p.Y.Padding = vg.Points(6)
	line, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(judged)) - 0.5}})
	if err != nil {
		return err
	}
	line.Color, line.Width = orange, vg.Points(1.5)
	p.Add(line)
	return save(p, 20*vg.Centimeter, vg.Length(len(judged)+4)*0.7*vg.Centimeter, file)
}

// goal draws one figure.
func goal(p *plot.Plot, y float64, m measure.Result) error {
	share := func(value float64) float64 {
		if m.AtLeast {
			return m.Goal / max(value, m.Goal/1000)
		}
		return max(value/m.Goal, 0.001)
	}
	spread, err := plotter.NewLine(plotter.XYs{{X: share(m.Low), Y: y}, {X: share(m.High), Y: y}})
	if err != nil {
		return err
	}
	spread.Color, spread.Width = grey, vg.Points(3)
	median, err := plotter.NewScatter(plotter.XYs{{X: share(m.Median), Y: y}})
	if err != nil {
		return err
	}
	median.Shape, median.Radius, median.Color = draw.CircleGlyph{}, vg.Points(4), blue
	switch m.Verdict {
	case measure.Miss, measure.Failed:
		median.Color = orange
	case measure.FullOnly, measure.Noisy:
		median.Color = grey
	case measure.Pass, measure.Told:
	}
	p.Add(spread, median)
	return nil
}

// nines are the quantiles that a chart of latencies marks.
var nines = []plot.Tick{
	{Value: 1, Label: "0"}, {Value: 2, Label: "50%"}, {Value: 10, Label: "90%"}, {Value: 100, Label: "99%"}, {Value: 1000, Label: "99.9%"},
}

// plots draws everything into a folder.
func (r Report) plots(dir string) error {
	if err := r.goals(filepath.Join(dir, "goals.svg")); err != nil {
		return err
	}
	for _, c := range r.Curves {
		chart := Chart{Title: c.Title, X: "share of requests that took no longer", Y: "ms", LogX: true, LogY: true, Ticks: nines}
		for _, line := range c.Lines {
			s := Series{Name: line.Name}
			for _, q := range line.Quantiles {
				s.Points = append(s.Points, plotter.XY{X: 1 / (1 - q.Share), Y: q.Milliseconds})
			}
			chart.Series = append(chart.Series, s)
		}
		if err := chart.Write(filepath.Join(dir, c.Row+".svg")); err != nil {
			return err
		}
	}
	return nil
}
