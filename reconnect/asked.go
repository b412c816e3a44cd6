package reconnect

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// asked.go owns what servers ask for.

const (
	maxRetryAfter = time.Hour       // the longest Retry-After that is believed
	restartMin    = 5 * time.Second // the IANA registry on 1012: "a randomized delay of 5 - 30s"
	restartMax    = 30 * time.Second
)

// asked is how long the server that err came from wants to be left alone.
func asked(err error, now time.Time) time.Duration {
	var refusal *websocket.HandshakeError
	var goodbye *websocket.CloseError
	switch {
	case errors.As(err, &refusal):
		if refusal.Response == nil {
			return 0
		}
		return retryAfter(refusal.Response.Header, now)
	case errors.As(err, &goodbye):
		switch goodbye.Code {
		case websocket.CloseServiceRestart, websocket.CloseTryAgainLater:
			return random(restartMin, restartMax)
		}
	}
	return 0
}

// retryAfter reads the field (RFC 9110 section 10.2.3): seconds or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseUint(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
}
