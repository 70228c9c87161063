package settings

// nearest returns the candidate that differs from name in the fewest letters, or "" when none is close enough to be what
// was meant.
func nearest(name string, candidates []string) string {
	best, fewest := "", max(2, len(name)/4)+1
	for _, c := range candidates {
		if d := distance(name, c); d < fewest {
			best, fewest = c, d
		}
	}
	return best
}

// didYouMean turns the nearest candidate into the end of an error message.
func didYouMean(name string, candidates []string) string {
	if c := nearest(name, candidates); c != "" {
		return "; did you mean " + c + "?"
	}
	return ""
}

// distance is the Levenshtein distance of a and b in bytes: how many insertions, deletions and replacements lie between
// them. Only the previous row of the usual table is kept.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
