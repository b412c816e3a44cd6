package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
)

// feed.go owns the quotes: where they come from, and the last of them for those
// who ask.

// kept is how many quotes a client may be behind and still get them all. Who is
// further behind gets the last ones.
const kept = 256

// A quote is a price at a time. It is encoded once, in the two forms in which it
// is sent.
type quote struct {
	time  int64  // microseconds since 1970; no two quotes have the same
	json  []byte // {"t":1795334400000000,"s":"ACME","p":17.25}
	event []byte // the same for Server-Sent Events
}

// A feed passes quotes on. Publishing does not wait for anybody.
type feed struct {
	hub      *hub.Hub
	endpoint *hub.Endpoint

	order sync.Mutex // held while a quote, or what a newcomer has missed, goes to the hub

	mu      sync.Mutex
	quotes  []quote       // the last ones, and perhaps as many again; what is in it does not change
	changed chan struct{} // closed with the next quote
}

func newFeed() *feed {
	f := &feed{changed: make(chan struct{})}
	f.connect()
	return f
}

// publish sends a quote to all.
func (f *feed) publish(symbol string, price float64) quote {
	f.order.Lock()
	defer f.order.Unlock()
	q := f.add(symbol, price, time.Now())
	f.hub.SendKey(market, symbol, websocket.Message{Type: websocket.MessageText, Data: q.json})
	return q
}

// add makes a quote the last one.
func (f *feed) add(symbol string, price float64, now time.Time) quote {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := quote{time: now.UnixMicro()}
	if n := len(f.quotes); n > 0 {
		q.time = max(q.time, f.quotes[n-1].time+1)
	}
	q.json = fmt.Appendf(nil, `{"t":%d,"s":%q,"p":%.2f}`, q.time, symbol, price)
	q.event = fmt.Appendf(nil, "id: %d\ndata: %s\n\n", q.time, q.json)
	if len(f.quotes) >= 2*kept {
		f.quotes = append(make([]quote, 0, 2*kept), f.quotes[len(f.quotes)-kept+1:]...)
	}
	f.quotes = append(f.quotes, q)
	close(f.changed)
	f.changed = make(chan struct{})
	return q
}

// since returns the quotes after a time, and what is closed when there is
// another. Who has seen the future was here before the server's clock was set
// back, and has missed them all.
func (f *feed) since(after int64) ([]quote, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	quotes := f.quotes[max(0, len(f.quotes)-kept):]
	if n := len(quotes); n > 0 && after <= quotes[n-1].time {
		quotes = quotes[sort.Search(n, func(i int) bool { return quotes[i].time > after }):]
	}
	return quotes, f.changed
}

var listed = []struct {
	symbol string
	price  float64
}{{"ACME", 174.20}, {"GLOBEX", 86.45}, {"HOOLI", 312.80}, {"INITECH", 41.05}}

// trade publishes quotes until ctx ends, at times that are not in step with
// anybody who polls.
func (f *feed) trade(ctx context.Context, every time.Duration) {
	prices := make([]float64, len(listed))
	for i, l := range listed {
		prices[i] = l.price
	}
	for {
		i := rand.IntN(len(listed))
		prices[i] = max(1, prices[i]*math.Exp(rand.NormFloat64()*0.001))
		f.publish(listed[i].symbol, prices[i])
		select {
		case <-time.After(time.Duration((0.5 + rand.Float64()) * float64(every))):
		case <-ctx.Done():
			return
		}
	}
}
