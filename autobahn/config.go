package autobahn

import (
	"crypto/tls"
	"net"
	"time"
)

const userAgent = "wsspec/1.0"

// A Config says what is tested and how. The zero value of every field but URL is right for most.
type Config struct {
	URL     string                                          // of the server under test, or the address that clients find the fuzzing server at
	Agent   string                                          // name in reports; "": what the testee calls itself
	TLS     *tls.Config                                     // for wss; nil: the system's roots
	Dial    func(network, address string) (net.Conn, error) // nil: TCP
	Headers [][2]string                                     // added to every request

	Origin    string
	Protocols []string

	Run        []string            // patterns of case ids ("6.*", "1.1.1"); empty: all
	Exclude    []string            // the same, left out
	ExcludeFor map[string][]string // agent pattern to case patterns

	Parallel int     // cases at a time against a server; 0: 1, as upstream does it
	Messages int     // messages in each case of 9.7, 9.8, 12 and 13; 0: 1000, as the catalogue says
	Limit    int64   // the largest message that the testee takes; 0: not known, cases that need it do not run
	Patience float64 // stretches every deadline, for slow machines; 0: 1. Pauses that cases make stay as they are

	OpenTimeout  time.Duration // opening handshake; 0: 5 s
	CloseTimeout time.Duration // answer to our Close; 0: 1 s
	DropTimeout  time.Duration // a server's end of TCP after the closing handshake; 0: 1 s

	NoWirelog bool           // reports without the log of octets and frames
	Dir       string         // fuzzing server: where /updateReports writes; "": nowhere
	Progress  func(Progress) // called after each case, one at a time
}

// Progress tells how far a run has come.
type Progress struct {
	Done, Total int
	Result      *Result // of the case that just ended
}

func (c *Config) patience() float64 {
	if c.Patience <= 0 {
		return 1
	}
	return c.Patience
}

func (c *Config) messages() int {
	if c.Messages <= 0 {
		return 1000
	}
	return c.Messages
}

func (c *Config) openTimeout() time.Duration  { return orDefault(c.OpenTimeout, 5*time.Second) }
func (c *Config) closeTimeout() time.Duration { return orDefault(c.CloseTimeout, time.Second) }
func (c *Config) dropTimeout() time.Duration  { return orDefault(c.DropTimeout, time.Second) }

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}
