// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/metadata"
)

const (
	// maxFamilies bounds the metadata map; further families are ignored.
	maxFamilies = 200_000
	// maxPerFamily bounds the different metadata of one family. Targets may
	// disagree; more than a few means a source that makes them up.
	maxPerFamily = 8
)

// metadataMap holds type, unit and help of metric families, from the log alone.
type metadataMap struct {
	changes atomic.Uint64

	// mu protects the following.
	mu       sync.RWMutex
	families map[string][]metadata.Metadata // distinct, newest last
}

func newMetadataMap() *metadataMap { return &metadataMap{families: map[string][]metadata.Metadata{}} }

// has tells whether m is known for family.
func (x *metadataMap) has(family string, m metadata.Metadata) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Contains(x.families[family], m)
}

// merge adds what is not known. Applier only.
func (x *metadataMap) merge(ms []familyMetadata) {
	if len(ms) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mergeLocked(ms)
}

func (x *metadataMap) mergeLocked(ms []familyMetadata) {
	for _, m := range ms {
		old, ok := x.families[m.family]
		if slices.Contains(old, m.Metadata) || (!ok && len(x.families) >= maxFamilies) {
			continue
		}
		if len(old) >= maxPerFamily {
			old = old[1:]
		}
		x.families[m.family] = append(slices.Clone(old), m.Metadata)
		x.changes.Add(1)
	}
}

func (x *metadataMap) copy() map[string][]metadata.Metadata {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make(map[string][]metadata.Metadata, len(x.families))
	for k, v := range x.families {
		out[k] = v // never changed in place
	}
	return out
}

// reset replaces all by ms. Readers see the one or the other.
func (x *metadataMap) reset(ms []familyMetadata) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.families = map[string][]metadata.Metadata{}
	x.changes.Add(1)
	x.mergeLocked(ms)
}

// MetricMetadata returns the distinct metadata of each metric family. The map is
// the caller's; the slices must not be changed.
func (f *FSM) MetricMetadata() map[string][]metadata.Metadata { return f.metadata.copy() }
