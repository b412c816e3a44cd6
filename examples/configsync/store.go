package main

import (
	"cmp"
	"errors"
	"slices"
	"sync"
)

// store.go owns the configuration, and what has changed in it since when.

// Limits of the configuration.
const (
	maxKeys    = 200
	maxKey     = 64  // bytes
	maxValue   = 256 // bytes
	maxDeleted = 100 // keys that are remembered to be deleted
)

// A change is what a key has come to.
type change struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Deleted bool   `json:"deleted,omitempty"`
	Version uint64 `json:"version"` // of the whole configuration, when this was changed
}

// A difference is what leads from one version to another.
type difference struct {
	Since   uint64   `json:"since"` // for whoever has this version, or a later one
	Version uint64   `json:"version"`
	All     bool     `json:"all,omitempty"` // whatever is not in Changes is deleted
	Changes []change `json:"changes"`       // the oldest first
}

// A store has the configuration. The servers share it, as they would share a
// database.
type store struct {
	mu      sync.Mutex
	version uint64
	keys    map[string]change // the deleted ones too
	floor   uint64            // what was deleted up to this version is forgotten
}

var (
	errKey   = errors.New("a key has 1 to 64 bytes without spaces")
	errValue = errors.New("a value has at most 256 bytes")
	errMany  = errors.New("there are too many keys")
)

// set gives key a value, and the configuration another version if it is another
// value.
func (s *store) set(key, value string) error {
	switch {
	case !validKey(key):
		return errKey
	case len(value) > maxValue:
		return errValue
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.keys[key]
	if known && !old.Deleted && old.Value == value {
		return nil
	}
	if (!known || old.Deleted) && s.count(false) >= maxKeys {
		return errMany
	}
	s.put(change{Key: key, Value: value})
	return nil
}

func validKey(key string) bool {
	return key != "" && len(key) <= maxKey && !slices.ContainsFunc([]byte(key), func(c byte) bool { return c <= ' ' || c > '~' })
}

// delete deletes key, and remembers that for those who have it.
func (s *store) delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.keys[key]; !ok || old.Deleted {
		return
	}
	s.put(change{Key: key, Deleted: true})
	if s.count(true) > maxDeleted {
		s.forget()
	}
}

func (s *store) put(c change) {
	if s.keys == nil {
		s.keys = make(map[string]change)
	}
	s.version++
	c.Version = s.version
	s.keys[c.Key] = c
}

func (s *store) count(deleted bool) (n int) {
	for _, c := range s.keys {
		if c.Deleted == deleted {
			n++
		}
	}
	return n
}

// forget forgets the oldest deletion. Whoever has an older version will be sent
// everything.
func (s *store) forget() {
	var oldest change
	for _, c := range s.keys {
		if c.Deleted && (oldest.Key == "" || c.Version < oldest.Version) {
			oldest = c
		}
	}
	delete(s.keys, oldest.Key)
	s.floor = oldest.Version
}

// since is what changed after a version. A version that never was is of another
// store, and whoever has it gets everything.
func (s *store) since(version uint64) difference {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := difference{Since: version, Version: s.version, Changes: []change{}}
	if version < s.floor && version > 0 || version > s.version {
		d.Since, d.All = 0, true
	}
	for _, c := range s.keys {
		if c.Version > d.Since && !(c.Deleted && d.Since == 0) {
			d.Changes = append(d.Changes, c)
		}
	}
	slices.SortFunc(d.Changes, func(a, b change) int { return cmp.Compare(a.Version, b.Version) })
	return d
}
