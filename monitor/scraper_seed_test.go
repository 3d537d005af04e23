// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"log/slog"
	"reflect"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/scrape"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

// A target has the same slot on nodes of different hosts, and perhaps another in a cluster with other external labels.
func TestNodesShareSlots(t *testing.T) {
	a, b := slotSeed(t, "a.example", "one"), slotSeed(t, "b.example", "one")
	require.NotZero(t, a)
	require.Equal(t, a, b)
	require.NotEqual(t, a, slotSeed(t, "a.example", "two"))
}

// slotSeed is what the slots of a Scraper follow from, beside the targets.
func slotSeed(t *testing.T, host, cluster string) uint64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	sd, err := discovery.CreateAndRegisterSDMetrics(registry)
	require.NoError(t, err)
	f, err := fsm.Open(fsm.Options{Dir: t.TempDir()}, "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	var o scrape.Options
	*(*string)(unsafe.Pointer(reflect.ValueOf(&o).Elem().FieldByName("fqdn").UnsafeAddr())) = host
	s, err := NewScraper(ScraperOptions{
		Cluster: &view{}, Scrape: o, SDMetrics: sd, Logger: slog.New(slog.DiscardHandler), Registerer: registry,
		Appendable: NewAppendable(AppendableOptions{FSM: f, Registerer: registry}),
	})
	require.NoError(t, err)
	t.Cleanup(s.cancel)
	c, err := config.Load("global: {external_labels: {cluster: "+cluster+"}}", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, s.ApplyConfig(c))
	return reflect.ValueOf(s.manager).Elem().FieldByName("offsetSeed").Uint()
}
