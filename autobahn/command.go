package autobahn

// The fuzzing server's command mode: a client on any other path says what it wants to be sent, as JSON arrays.

import (
	"encoding/hex"
	"encoding/json"
	"strings"
)

var commandCase = &Case{play: func(*run) {}, message: runCommand}

// A frameCommand is what sendframe takes.
type frameCommand struct {
	Opcode     byte   `json:"opcode"`
	Payload    string `json:"payload"`
	Fin        *bool  `json:"fin"`
	RSV        byte   `json:"rsv"`
	Mask       string `json:"mask"`
	PayloadLen int    `json:"payload_len"`
	ChopSize   int    `json:"chopsize"`
	Sync       bool   `json:"sync"`
}

// runCommand obeys one message; what is no command is ignored.
func runCommand(r *run, m message) {
	var parts []json.RawMessage
	var name string
	if json.Unmarshal(m.data, &parts) != nil || len(parts) != 2 || json.Unmarshal(parts[0], &name) != nil {
		return
	}
	switch name {
	case "sendframe":
		r.obey(parts[1])
	case "sendframes":
		var all []json.RawMessage
		if json.Unmarshal(parts[1], &all) == nil {
			for _, one := range all {
				r.obey(one)
			}
		}
	case "close":
		var c struct {
			Code   int    `json:"code"`
			Reason string `json:"reason"`
		}
		if json.Unmarshal(parts[1], &c) == nil {
			r.close(c.Code, c.Reason)
		}
	case "echo":
		var e frameCommand
		if json.Unmarshal(parts[1], &e) == nil {
			r.send(one, text(string(stretch(e.Payload, e.PayloadLen))))
		}
	}
}

func (r *run) obey(raw json.RawMessage) {
	var c frameCommand
	if json.Unmarshal(raw, &c) != nil || c.PayloadLen > maxInflated {
		return
	}
	f := frame{op: c.Opcode & 15, rsv: c.RSV & 7, more: c.Fin != nil && !*c.Fin, payload: stretch(c.Payload, c.PayloadLen), raw: true}
	if key, err := hex.DecodeString(c.Mask); err == nil && len(key) == 4 {
		k := uint32(key[0])<<24 | uint32(key[1])<<16 | uint32(key[2])<<8 | uint32(key[3])
		f.key, f.unlike = &k, !r.client
	}
	m := one
	switch {
	case c.ChopSize > 0:
		m = mode(c.ChopSize)
	case c.Sync:
		m = each
	}
	r.send(m, f)
}

// stretch repeats a payload up to n octets, if n is given.
func stretch(s string, n int) []byte {
	if n <= 0 || s == "" || n > maxInflated {
		return []byte(s)
	}
	return []byte(strings.Repeat(s, n/len(s)+1)[:n])
}
