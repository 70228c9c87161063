package process

import "syscall"

// dieWithParent lets the kernel kill the child when the parent dies, which no cleanup function survives to do.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
