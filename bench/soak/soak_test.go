package main

import (
	"testing"
	"time"
)

// A moment of it.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes five seconds")
	}
	*duration, *clients = 5*time.Second, 100
	if !soak() {
		t.Fatal("see above")
	}
}
