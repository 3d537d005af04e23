// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/grafana/regexp"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/deucaliondb/deucalion/api/remotewrite"
	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// Cluster is what this package needs of *cluster.Node. Contexts bound every wait.
type Cluster interface {
	fsm.Proposer
	// ID is this node's id.
	ID() string
	// Staleness bounds how far this node's state may be behind the leader's.
	Staleness() time.Duration
	// Ready is nil while this node should be sent requests.
	Ready() error
	// Leader is the id of the leader, if there is one that this node knows of.
	Leader() (id string, ok bool)
	// Nodes asks all members how they are; those that do not answer are listed as unreachable.
	Nodes(ctx context.Context) []cluster.NodeStatus
	// AwaitAll returns when all live members have applied index and done the task ("": none).
	AwaitAll(ctx context.Context, index uint64, task string) error
	// Digest makes all members hash their data at one index, and compares.
	Digest(ctx context.Context, ranges []fsm.TimeRange) (*cluster.DigestReport, error)
	// Import adds the blocks in a tar; see cluster.Node. The report may come with an error.
	Import(ctx context.Context, tarball io.Reader) (*cluster.ImportReport, error)
}

// Config is what an API needs. All fields must be given unless they say otherwise.
type Config struct {
	FSM     *fsm.FSM
	Cluster Cluster
	// Engine runs queries; Parser is the one that it was made with.
	Engine promql.QueryEngine
	Parser parser.Parser
	// PrometheusConfig is the configuration in force, for /status/config and the external labels of remote read.
	PrometheusConfig func() config.Config
	// Flags are shown by /api/v1/status/flags.
	Flags map[string]string
	// BuildInfo is shown by /api/v1/status/buildinfo. Clients look at its version to see what they may ask for.
	BuildInfo *v1.PrometheusVersion
	// Features is shown by /api/v1/features; New adds what the API has.
	Features features.Collector
	// ListenAddress and ExternalURL are how this server is reached; the path of ExternalURL prefixes all routes.
	ListenAddress string
	ExternalURL   *url.URL
	CORSOrigin    *regexp.Regexp
	// EnableAdmin opens delete_series, clean_tombstones, snapshot, import and digest.
	EnableAdmin bool
	// Consistency is the level of reads that do not name one.
	Consistency Level
	// MaxStaleness is what the level bounded allows.
	MaxStaleness time.Duration
	// QueryTimeout bounds the wait for a fresh state, which is never longer than 10 s.
	QueryTimeout time.Duration
	// Retention is shown by /api/v1/status/runtimeinfo, such as "15d".
	Retention string
	// AcceptMessages lists the remote-write messages that are taken; nil: all.
	AcceptMessages remoteapi.MessageTypes
	RemoteRead     RemoteReadLimits
	Logger         *slog.Logger
	Registerer     prometheus.Registerer
	Gatherer       prometheus.Gatherer
}

// RemoteReadLimits are the storage.remote.read-* flags of Prometheus. 0 means no limit, but for BytesInFrame.
type RemoteReadLimits struct {
	Samples, Concurrency, BytesInFrame int
}

// API serves HTTP. Its methods are goroutine-safe.
type API struct {
	cfg           Config
	logger        *slog.Logger
	birth         time.Time
	gate          *gate
	metrics       *metrics
	notifications *notifications.Notifications
	write         http.Handler
	prometheus    *v1.API
	handler       http.Handler
}

// New builds the API and registers its metrics. It starts no goroutines. It fails only on a Config that makes no sense.
func New(cfg Config) (*API, error) {
	if _, err := ParseLevel(string(cfg.Consistency)); err != nil {
		return nil, err
	}
	a := &API{
		cfg:           cfg,
		logger:        cfg.Logger,
		birth:         time.Now().UTC(),
		gate:          &gate{cluster: cfg.Cluster},
		notifications: notifications.NewNotifications(maxNotificationSubscribers, cfg.Registerer),
	}
	a.metrics = newMetrics(cfg.Registerer, a.gate)
	a.write = remotewrite.New(remotewrite.Config{
		NewBatch:   func() remotewrite.Batch { return cfg.FSM.NewBatch() },
		Proposer:   cfg.Cluster,
		NodeID:     cfg.Cluster.ID(),
		Accept:     cfg.AcceptMessages,
		Logger:     cfg.Logger.With("component", "remote write"),
		Registerer: cfg.Registerer,
	})
	a.registerFeatures()
	a.prometheus = a.newPrometheusAPI()
	a.handler = a.recoverPanics(a.routes())
	return a, nil
}

// Handler serves all of it.
func (a *API) Handler() http.Handler { return a.handler }
