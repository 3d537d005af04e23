// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"

	"github.com/prometheus/prometheus/config"
)

// warnIgnored tells the operator which settings of the file have no effect here.
func warnIgnored(c *config.Config, logger *slog.Logger) {
	tsdb := c.StorageConfig.TSDBConfig
	warn := func(name, why string) {
		logger.Warn("This setting of the configuration file has no effect", "setting", name, "reason", why)
	}
	if tsdb.StaleSeriesCompactionThreshold != 0 {
		warn("storage.tsdb.stale_series_compaction_threshold", "a memtable is frozen as a whole every 30 minutes")
	}
	if tsdb.ChunkEncoding.Floats == config.FloatChunkEncodingXOR2 {
		warn("storage.tsdb.chunk_encoding.floats", "chunks are written with the XOR encoding")
	}
}
