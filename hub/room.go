package hub

import (
	"errors"
	"unicode"
	"unicode/utf8"
)

// room.go owns names: what may be one, and how rooms and users are told apart.

const (
	maxNamespace = 32  // bytes
	maxName      = 128 // bytes, of a room or a user
)

// A Room is the name of a room. Its Namespace is 1 to 32 ASCII letters, digits,
// "_" or "-"; its Name is 1 to 128 of these and ".:@~". All else is refused, so
// that no name is a pattern, a path or an escape to anything that it passes
// through.
type Room struct {
	Namespace string `json:"namespace"`
	Name      string `json:"room"`
}

// String returns "namespace/name".
func (r Room) String() string { return r.Namespace + "/" + r.Name }

// The errors that say what was wrong with a call. Others come from Authorize or
// the connection.
var (
	ErrName      = errors.New("hub: not a name of a room, a namespace or a user")
	ErrRefused   = errors.New("hub: not allowed to join")
	ErrLimit     = errors.New("hub: in too many rooms")
	ErrFull      = errors.New("hub: the room is full")
	ErrNotMember = errors.New("hub: not in that room")
	ErrGone      = errors.New("hub: the member has left the hub")
	ErrUnsent    = errors.New("hub: too much waits for the broker")
)

func (r Room) check() error {
	if !plain(r.Namespace, maxNamespace, "_-") || !plain(r.Name, maxName, "_.:@~-") {
		return ErrName
	}
	return nil
}

// plain tells whether s is 1 to most letters, digits and others.
func plain(s string, most int, others string) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		default:
			found := false
			for j := range len(others) {
				found = found || others[j] == c
			}
			if !found {
				return false
			}
		}
	}
	return true
}

// checkUser refuses what nobody could be called: users are 1 to 128 bytes of
// printable UTF-8.
func checkUser(s string) error {
	if s == "" || len(s) > maxName || !utf8.ValidString(s) {
		return ErrName
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return ErrName
		}
	}
	return nil
}

// Topics are what messages are sent to; their kinds keep the names apart, and no
// namespace has a slash in it.
func roomTopic(r Room) string            { return "r/" + r.Namespace + "/" + r.Name }
func userTopic(user string) string       { return "u/" + user }
func spaceTopic(namespace string) string { return "n/" + namespace }
