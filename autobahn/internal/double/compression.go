package double

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"strings"
)

// A compression is permessage-deflate by compress/flate, which knows no window but that of 15 bits.
type compression struct {
	d            *Double
	keepIn, keep bool // context takeover for what is received, and for what is sent
	past         []byte
	out          bytes.Buffer
	w            *flate.Writer
}

var tail = []byte{0, 0, 0xff, 0xff}

func (c *compression) inflate(p []byte, limit int64) ([]byte, error) {
	end := "\x01\x00\x00\xff\xff"
	if !bytes.HasSuffix(p, tail) {
		end = string(tail) + end
	}
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(p), strings.NewReader(end)), c.past)
	if c.d.has(InflateUnlimited) {
		limit = 1 << 40
	}
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(plain)) > limit {
		return nil, errTooBig
	}
	if err != nil && !c.d.has(InflateErrorsIgnored) {
		return nil, &failure{1007, err.Error()}
	}
	if c.keepIn && !c.d.has(InflateTakeoverLost) {
		c.past = append(c.past, plain...)
		c.past = bytes.Clone(c.past[max(0, len(c.past)-32768):])
	}
	return plain, nil
}

func (c *compression) deflate(p []byte) []byte {
	c.out.Reset()
	if c.w == nil {
		c.w, _ = flate.NewWriter(&c.out, flate.DefaultCompression)
	} else if !c.keep && !c.d.has(DeflateTakeoverKept) {
		c.w.Reset(&c.out)
	}
	c.w.Write(p)
	c.w.Flush()
	if c.d.has(TailLeftOn) {
		return c.out.Bytes()
	}
	return bytes.TrimSuffix(c.out.Bytes(), tail)
}

// A params is one extension with its parameters, "-" for a value that is not there.
type params struct {
	name   string
	values map[string]string
	twice  bool
}

func parse(header string) []params {
	var all []params
	for one := range strings.SplitSeq(header, ",") {
		words := strings.Split(one, ";")
		p := params{name: strings.TrimSpace(words[0]), values: map[string]string{}}
		for _, w := range words[1:] {
			k, v, ok := strings.Cut(strings.TrimSpace(w), "=")
			if !ok {
				v = "-"
			}
			if _, again := p.values[k]; again {
				p.twice = true
			}
			p.values[k] = strings.Trim(v, `"`)
		}
		all = append(all, p)
	}
	return all
}

var bits = map[string]bool{"8": true, "9": true, "10": true, "11": true, "12": true, "13": true, "14": true, "15": true}

// valid checks names and values; bare allows client_max_window_bits without a value, as an offer may have it.
func (p params) valid(bare bool) bool {
	ok := p.name == "permessage-deflate" && !p.twice
	for k, v := range p.values {
		switch k {
		case "server_no_context_takeover", "client_no_context_takeover":
			ok = ok && v == "-"
		case "server_max_window_bits":
			ok = ok && bits[v]
		case "client_max_window_bits":
			ok = ok && (bits[v] || bare && v == "-")
		default:
			ok = false
		}
	}
	return ok
}

func (p params) have(name string) bool { _, ok := p.values[name]; return ok }

// accept answers an offer as a server.
func (d *Double) accept(header string) (answer string, c *compression) {
	if d.Offer == "none" || header == "" {
		return "", nil
	}
	if d.has(AnyExtension) {
		return strings.TrimSpace(parse(header)[0].name), nil
	}
	for _, p := range parse(header) {
		ok := p.valid(true) || d.has(AnyParameter) && p.name == "permessage-deflate"
		n := p.values["server_max_window_bits"]
		if !ok || n != "" && n != "15" && !d.has(WindowIgnored) && !d.has(AnyParameter) {
			continue
		}
		answer, c = "permessage-deflate", &compression{d: d, keepIn: true, keep: true}
		if p.have("server_no_context_takeover") {
			answer += "; server_no_context_takeover"
			c.keep = false
		}
		if n != "" {
			answer += "; server_max_window_bits=" + n
		}
		return answer, c
	}
	return "", nil
}

var errAnswer = errors.New("bad answer to the extension offer")

// agree reads a server's answer as a client.
func (d *Double) agree(headers []string) (*compression, error) {
	if len(headers) == 0 {
		return nil, nil
	}
	all := parse(strings.Join(headers, ","))
	p := all[0]
	if d.has(AnyExtension) && p.name != "permessage-deflate" {
		return nil, nil
	}
	wrong := len(all) != 1 || !p.valid(false) || p.have("client_max_window_bits") && !strings.Contains(d.Offer, "client_max_window_bits")
	if d.Offer == "" || wrong && !d.has(AnyParameter) {
		return nil, errAnswer
	}
	keepIn := !p.have("server_no_context_takeover")
	return &compression{d: d, keepIn: keepIn, keep: !p.have("client_no_context_takeover")}, nil
}
