//go:build !linux

// c1m measures on Linux only.
package main

import "fmt"

func main() { fmt.Println("c1m measures on Linux only") }
