//go:build !linux

package process

import "syscall"

// dieWithParent does nothing here: only Linux ties a child's life to that of its parent.
func dieWithParent() *syscall.SysProcAttr { return nil }
