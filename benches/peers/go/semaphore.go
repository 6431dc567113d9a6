//go:build xsync

// What needs golang.org/x/sync: left out of the program where that cannot be had.
package main

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"
)

func init() { works["semaphore"] = acquireRelease }

func acquireRelease(n int) int64 {
	s, ctx := semaphore.NewWeighted(3), context.Background()
	start = time.Now()
	for i := 0; i < n; i++ {
		if s.Acquire(ctx, 1) != nil {
			fail("semaphore: refused")
		}
		s.Release(1)
	}
	return since()
}
