// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/util/features"

	"github.com/deucaliondb/deucalion/monitor"
)

// startScraping begins to discover targets, which come with the first configuration.
func (n *node) startScraping(o *options, known features.Collector) error {
	// The scrape package reads these from its package variables, and has no other way.
	scrape.AlignScrapeTimestamps, scrape.ScrapeTimestampTolerance = o.monitoring.adjustTimestamps, o.monitoring.timestampToler
	var err error
	if n.discoveries, err = discovery.CreateAndRegisterSDMetrics(n.registry); err != nil {
		return fmt.Errorf("register service discovery metrics: %w", err)
	}
	if err := discovery.RegisterK8sClientMetricsWithPrometheus(n.registry); err != nil {
		return fmt.Errorf("register Kubernetes client metrics: %w", err)
	}
	n.scraper, err = monitor.NewScraper(monitor.ScraperOptions{
		Cluster:    n.cluster,
		Appendable: n.appender,
		Mode:       monitor.ShardMode(o.monitoring.shard),
		Scrape:     o.scrapeOptions(),
		SDMetrics:  n.discoveries,
		Features:   known,
		Logger:     n.logger,
		Registerer: n.registry,
	})
	if err != nil {
		return fmt.Errorf("start scraping: %w", err)
	}
	n.config.add("scrape", n.scraper.ApplyConfig)
	n.scraper.Start()
	n.onStop(scrapeTimeout, func(ctx context.Context) error {
		if err := n.scraper.Stop(ctx); err != nil {
			n.logger.Warn("Scraping was cut off", "err", err)
		}
		return nil
	})
	return nil
}

// scrapeOptions are what Prometheus makes of its flags and features.
func (o *options) scrapeOptions() scrape.Options {
	zeros := o.features.has("created-timestamp-zero-ingestion")
	return scrape.Options{
		DiscoveryReloadInterval:           o.monitoring.discoveryInterval,
		EnableStartTimestampZeroIngestion: zeros,
		ParseST:                           zeros,
		SynthesizeST:                      o.features.has("st-synthesis"),
		EnableTypeAndUnitLabels:           o.features.has("type-and-unit-labels"),
		EnableOpenMetrics2:                o.features.has("openmetrics2"),
		EnableZstdScrape:                  o.features.has("zstd-scrape"),
	}
}
