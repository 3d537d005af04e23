// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/json"
	"fmt"
	"time"
)

// Settings are the parameters of admission that must be the same on all nodes.
// An entry replaces all of them.
type Settings struct {
	// OutOfOrderWindow is how far behind the newest sample of all a sample may be
	// that is older than the newest of its own series. Zero: never. Resolution
	// 1 ms. As storage.tsdb.out_of_order_time_window of Prometheus.
	OutOfOrderWindow time.Duration `json:"out_of_order_window_ns"`
	// MaxExemplars bounds the exemplars kept, all series together; zero keeps none.
	MaxExemplars int64 `json:"max_exemplars"`
	// ClusterID is drawn at random by the first leader and never changes.
	ClusterID string `json:"cluster_id"`
	// MinVersion is the lowest entry-format level that a member must know.
	MinVersion uint32 `json:"min_version"`
}

// EncodeSettings makes a settings entry. Settings are rare and grow with
// versions, hence JSON.
func EncodeSettings(s Settings) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("settings are plain values: %v", err))
	}
	return seal(append(newEntry(kindSettings), b...))
}

func decodeSettings(p []byte) (Settings, error) {
	var s Settings
	if err := json.Unmarshal(p, &s); err != nil {
		return Settings{}, fmt.Errorf("%w: settings: %w", ErrFormat, err)
	}
	if s.OutOfOrderWindow < 0 || s.MaxExemplars < 0 {
		return Settings{}, fmt.Errorf("%w: negative settings", ErrFormat)
	}
	return s, nil
}
