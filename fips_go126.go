//go:build go1.26

package websocket

import "crypto/fips140"

// withoutFIPS runs f, which uses a hash for something that is no cryptography,
// so that it works under GODEBUG=fips140=only too.
func withoutFIPS(f func()) { fips140.WithoutEnforcement(f) }
