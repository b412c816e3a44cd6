module github.com/seed-07372d5a/websocket/bench

go 1.25.0

replace github.com/seed-07372d5a/websocket => ../

require (
	github.com/klauspost/compress v1.20.3
	github.com/seed-07372d5a/websocket v0.0.0-00010101000000-000000000000
)
