//go:build !linux

// Command hub runs on Linux only.
package main

import "fmt"

func main() { fmt.Println("bench/hub runs on Linux only.") }
