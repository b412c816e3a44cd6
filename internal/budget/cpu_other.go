//go:build !linux

package budget

import "time"

// cpuTime is what the calling thread has used, where the system tells.
func cpuTime() time.Duration { return 0 }
