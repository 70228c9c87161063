//go:build race

package binary

const raceDetector = true
