//go:build !unix

package engine

import "time"

func cpu() time.Duration { return 0 }
