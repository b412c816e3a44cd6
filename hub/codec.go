package hub

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket"
)

// codec.go owns what goes over a broker. Whoever can write to the broker may
// have made it: every length is checked, and nothing is allocated for one.

// A packet is what one hub says to the others:
//
//	version, kind, type: a byte each
//	node, epoch, number: 8 bytes each, the most significant first
//	topic, user, key:    2 bytes of length each, and the text
//	data:                the rest
type packet struct {
	kind    byte
	node    uint64 // whose it is
	epoch   uint64 // numbers begin with 1 in each of a node's epochs, which grow
	number  uint64 // of the packets of this node in this topic; 0 if it is not counted
	topic   string
	user    string // packMessage: Event.User
	key     string
	message websocket.Message // its Data is lent when decoded
}

// The kinds of packets.
const (
	packMessage byte = 1 + iota
	packState        // users have come and gone
	packHere         // all users that are here
	packAsk          // who is there?
	packLost         // packets of this node in this topic were lost
	packBeat         // this node is alive
	packBye          // this node ends
	packEnd
)

const (
	packVersion = 1
	packHead    = 3 + 3*8
	maxTopic    = 200
	maxPacket   = 16<<20 + packHead + 6 + maxTopic + 2*maxName
)

var errPacket = errors.New("hub: not a packet")

func appendPacket(b []byte, p *packet) []byte {
	kind := byte(p.message.Type)
	if p.message.Plain {
		kind |= 0x80
	}
	b = append(b, packVersion, p.kind, kind)
	b = binary.BigEndian.AppendUint64(b, p.node)
	b = binary.BigEndian.AppendUint64(b, p.epoch)
	b = binary.BigEndian.AppendUint64(b, p.number)
	for _, s := range [...]string{p.topic, p.user, p.key} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return append(b, p.message.Data...)
}

// parsePacket reads a packet that has come for a topic.
func parsePacket(topic string, b []byte) (p packet, err error) {
	if len(topic) < 2 || len(b) < packHead || len(b) > maxPacket || b[0] != packVersion || b[1] == 0 || b[1] >= packEnd {
		return p, errPacket
	}
	p.kind = b[1]
	p.message.Type, p.message.Plain = websocket.MessageType(b[2]&0x7f), b[2]&0x80 != 0
	p.node = binary.BigEndian.Uint64(b[3:])
	p.epoch = binary.BigEndian.Uint64(b[11:])
	p.number = binary.BigEndian.Uint64(b[19:])
	b = b[packHead:]
	for _, f := range [...]struct {
		s    *string
		most int
	}{{&p.topic, maxTopic}, {&p.user, maxName}, {&p.key, maxName}} {
		if len(b) < 2 {
			return p, errPacket
		}
		n := int(binary.BigEndian.Uint16(b))
		if n > f.most || n > len(b)-2 {
			return p, errPacket
		}
		*f.s, b = string(b[2:2+n]), b[2+n:]
	}
	p.message.Data = b
	switch {
	case p.topic != topic, p.user != "" && checkUser(p.user) != nil:
		return p, errPacket
	case p.kind == packMessage:
		if p.number == 0 || checkMessage(p.message) != nil {
			return p, errPacket
		}
	case p.kind == packState, p.kind == packHere:
		_, err = parseStates(p.message.Data)
	case len(b) > 0:
		return p, errPacket
	}
	return p, err
}

// appendState appends a user to the data of packState or packHere.
func appendState(b []byte, s spreading) []byte {
	here := byte(0)
	if s.online {
		here = 1
	}
	return append(append(b, here, byte(len(s.user))), s.user...)
}

func parseStates(b []byte) (states []spreading, err error) {
	for len(b) > 0 {
		if len(b) < 2 || b[0] > 1 || int(b[1]) > len(b)-2 || int(b[1]) > maxName {
			return nil, errPacket
		}
		s := spreading{string(b[2 : 2+b[1]]), b[0] == 1}
		if checkUser(s.user) != nil || !utf8.ValidString(s.user) {
			return nil, errPacket
		}
		states, b = append(states, s), b[2+b[1]:]
	}
	return states, nil
}
