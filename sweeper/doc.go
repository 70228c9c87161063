// Package sweeper cleans up.
package sweeper
