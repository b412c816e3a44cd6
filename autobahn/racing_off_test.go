//go:build !race

package autobahn_test

const racing = false // deadlines and numbers are smaller under the race detector
