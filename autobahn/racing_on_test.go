//go:build race

package autobahn_test

const racing = true // deadlines and numbers are smaller under the race detector
