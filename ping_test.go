package websocket

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A peer that is silent gets a ping after 25 s and is given up 20 s later, by
// default (A68).
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{})
		go func() {
			r.expect(ping, "")
			require.Equal(t, 25*time.Second, since())
			r.send(masked(pong, 1), "")
			pass(10 * time.Second)
			r.send(masked(text, 1), "heard")
			r.expect(ping, "")
			require.Equal(t, (25+10+25)*time.Second, since())
		}()
		require.Equal(t, "text heard", read(t, c))
		_, err := c.Read(bg)
		require.Equal(t, ErrPeerTimeout, err)
		require.Equal(t, (25+10+25+20)*time.Second, since())
		require.Equal(t, ErrPeerTimeout, c.Write(bg, Text("x")))
		require.Equal(t, ErrPeerTimeout, context.Cause(c.Context()))
	})
}

// Any byte counts as a sign of life, a part of a message too.
func TestKeepAliveHearsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: Config{KeepAlive: 2 * time.Second, KeepAliveTimeout: time.Second}})
		in := frames(masked(text, 1), "slowly")
		go func() {
			for _, b := range in {
				pass(1900 * time.Millisecond)
				r.Write([]byte{b})
			}
		}()
		require.Equal(t, "text slowly", read(t, c))
		require.Zero(t, r.Conn.(interface{ Buffered() int }).Buffered(), "no ping was sent")
		c.CloseNow()
	})
}

// Nobody is found dead by a program that does not read: the pong may be here.
func TestKeepAliveWithoutReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(Config{}, quiet)
		go c.Serve(bg, nil)
		pass(time.Hour)
		go c.Write(bg, Text("still here"))
		require.Equal(t, "text still here", read(t, s))
		s.Close(1000, "")
	})
}

// Both sides keep alive by default, and an idle connection lives for ever.
func TestKeepAliveBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(Config{}, Config{})
		go s.Serve(bg, nil)
		go c.Serve(bg, nil)
		pass(24 * time.Hour)
		require.NoError(t, context.Cause(s.Context()))
		require.NoError(t, s.Close(1000, ""))
	})
}

// Negative means none.
func TestKeepAliveOff(t *testing.T) {
	for _, cfg := range []Config{{KeepAlive: -1}, {KeepAliveTimeout: -1}} {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: cfg})
			go c.Serve(bg, nil)
			pass(time.Hour - time.Second)
			require.NoError(t, context.Cause(c.Context()))
			pings := 0
			if cfg.KeepAlive == 0 {
				pings = int((time.Hour - time.Second) / (25 * time.Second))
			}
			for range pings {
				r.expect(ping, "")
			}
			require.Zero(t, r.Conn.(interface{ Buffered() int }).Buffered())
			c.CloseNow()
		})
	}
}

// Ping waits for its pong, and a pong answers all pings before it (RFC 6455
// section 5.5.3). Others are ignored.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pongs []string
		cfg := quiet
		cfg.OnPong = func(_ *Conn, p []byte) { pongs = append(pongs, string(p)) }
		c, r := rawPeer(t, Params{Config: cfg})
		defer c.CloseNow()
		go c.Serve(bg, nil)
		done := make(chan int, 3)
		for i := range 3 {
			go func() {
				require.NoError(t, c.Ping(bg))
				done <- i
			}()
			synctest.Wait()
		}
		number := func(n int) string { return fmt.Sprintf("\x00\x00\x00\x00\x00\x00\x00%c", n) }
		r.expect(ping, number(1), ping, number(2), ping, number(3))
		r.send(masked(pong, 1), "", masked(pong, 1), "unasked-for", masked(pong, 1), number(77))
		synctest.Wait()
		require.Empty(t, done)
		r.send(masked(pong, 1), number(2))
		synctest.Wait()
		require.Len(t, done, 2)
		r.send(masked(pong, 1), number(3))
		synctest.Wait()
		require.Len(t, done, 3)
		require.Equal(t, []string{"", "unasked-for", number(77), number(2), number(3)}, pongs)
	})
}

func TestPingContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := rawPeer(t, Params{Config: quiet})
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, c.Ping(ctx))
		require.Equal(t, context.DeadlineExceeded, c.Ping(ctx))
		require.Empty(t, c.pinger.Load().waiting)
		require.NoError(t, context.Cause(c.Context()), "the connection lives on")
		c.CloseNow()
	})
}

// OnPing is called, and pings are answered anyway; a Close from a hook does not
// wait for itself.
func TestOnPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet
		cfg.OnPing = func(c *Conn, p []byte) {
			if string(p) == "go" {
				require.NoError(t, c.Close(4000, "as you wish"))
			}
		}
		c, r := rawPeer(t, Params{Config: cfg})
		r.send(masked(ping, 1), "a", masked(ping, 1), "go")
		go func() {
			r.expect(pong, "a", closed, closeFrame(4000, "as you wish"))
			r.send(masked(closed, 1), "\x0f\xa0")
			r.Close()
		}()
		_, err := c.Read(bg)
		require.Equal(t, CloseCode(4000), CodeOf(err))
		require.Zero(t, since())
	})
}

// Who begins to read just before the timeout has the answer in front of him,
// unread: the peer is given up only if it was listened to a moment before, too.
func TestKeepAliveLooksTwice(t *testing.T) {
	const s = time.Second
	prof := new(Params).profile()
	for _, heard := range []time.Duration{1 * s, 44500 * time.Millisecond} {
		p := pinger{timer: time.NewTimer(time.Hour)}
		ping, dead := p.tick(25*s, 0, false, prof)
		require.True(t, ping)
		require.False(t, dead)
		ping, dead = p.tick(44*s, 1*s, true, prof)
		require.False(t, ping)
		require.False(t, dead, "who listens has only just begun")
		_, dead = p.tick(45*s, heard, true, prof)
		require.Equal(t, heard == 1*s, dead)
	}
}
