//go:build unix

package main

import (
	"os"
	"syscall"
)

// exclusive takes the file's lock, which ends with the process, or fails at once.
func exclusive(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
