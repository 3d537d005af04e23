// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"maps"
	"slices"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// applyShipped moves the positions of remote stores. The map is replaced, never changed: others read it.
func (f *FSM) applyShipped(p []byte) error {
	s, err := decodeShipped(p)
	if err != nil {
		return err
	}
	out := f.Shipped()
	for _, name := range s.Forget {
		delete(out, name)
	}
	for _, name := range sortedKeys(s.Positions) {
		if old, ok := out[name]; ok || len(out) < MaxRemotes {
			out[name] = max(old, s.Positions[name])
		}
	}
	f.shipped.Store(&out)
	return nil
}

// Shipped returns the position of each remote store, see type Shipped. The map is the caller's.
func (f *FSM) Shipped() map[string]uint64 {
	out := maps.Clone(*f.shipped.Load())
	if out == nil {
		out = map[string]uint64{}
	}
	return out
}

// ShippedFrom returns the lowest position of all remote stores; ok is false when there is none.
func (f *FSM) ShippedFrom() (index uint64, ok bool) {
	for _, i := range *f.shipped.Load() {
		if !ok || i < index {
			index, ok = i, true
		}
	}
	return index, ok
}
