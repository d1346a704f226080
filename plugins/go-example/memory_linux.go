package main

import "syscall"

// No other process of this user may read the key in this one's memory, and it is in no core dump.
func init() {
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
}
