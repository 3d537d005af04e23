// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/grafana/regexp"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
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
	// Newest bounds the timestamps that clients may send: up to sure they are taken, after never refused for good, and
	// in between the clocks of the cluster disagree.
	Newest() (sure, never time.Time)
	// Leader is the id of the leader, if there is one that this node knows of.
	Leader() (id string, ok bool)
	// Nodes asks all members how they are; those that do not answer are listed as unreachable.
	Nodes(ctx context.Context) []cluster.NodeStatus
	// AwaitAll returns when all live members have applied index and done the task ("": none). It names those that are
	// dead.
	AwaitAll(ctx context.Context, index uint64, task string) (away []string, err error)
	// Members are the live nodes by id.
	Members() []cluster.Member
	// HandlePeers lets h answer what other nodes ask with AskPeer.
	HandlePeers(h http.Handler)
	// AskPeer sends a request to the handler of a node, which may be this one. The caller closes the answer's body.
	AskPeer(ctx context.Context, id, method, uri string, header http.Header, body io.Reader) (*http.Response, error)
	// Digest makes all members hash their data at one index, and compares.
	Digest(ctx context.Context, ranges []fsm.TimeRange) (*cluster.DigestReport, error)
	// Import adds the blocks in a tar; see cluster.Node. The report may come with an error.
	Import(ctx context.Context, tarball io.Reader) (*cluster.ImportReport, error)
	// TransferLeadership moves the leadership to a node, "" being the best; see cluster.Node.
	TransferLeadership(ctx context.Context, id string) error
	// RemovePeer takes a dead node out of the cluster, and returns the log index of that; see cluster.Node.
	RemovePeer(ctx context.Context, id string) (index uint64, err error)
}

// Config is what an API needs. All fields must be given unless they say otherwise.
type Config struct {
	FSM     *fsm.FSM
	Cluster Cluster
	// Source is what Prometheus's handlers query (default: FSM): the state, and perhaps remote_read stores.
	Source storage.SampleAndChunkQueryable
	// Engine runs queries; Parser is the one that it was made with.
	Engine promql.QueryEngine
	Parser parser.Parser
	// Scraping is what this node scrapes; nil: nothing.
	Scraping Scraping
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
	// RoutePrefix goes before all routes in place of the path of ExternalURL, if it is not "".
	RoutePrefix string
	// EnableAdmin opens delete_series, clean_tombstones and snapshot, over HTTP and gRPC, and over HTTP import, digest,
	// transfer_leader and remove_peer.
	EnableAdmin bool
	// EnableLifecycle opens /-/reload and /-/quit, and needs the two functions: Reload reads the configuration again and
	// returns when it is in force, Quit asks the process to end and returns at once.
	EnableLifecycle bool
	Reload          func() error
	Quit            func()
	// EnableOTLP opens /api/v1/otlp/v1/metrics, and needs Appendable, the way into the log. An appender of it that has
	// the method Index() uint64 tells by it the log index of what it has committed. An error of Append that wraps
	// cluster.ErrClockOff is answered with 503.
	EnableOTLP bool
	OTLP       OTLPOptions
	Appendable storage.AppendableV2
	// TypeAndUnitLabels gives series that come by OTLP or remote write 2.0 the labels __type__ and __unit__.
	TypeAndUnitLabels bool
	Search            SearchOptions
	Consoles          ConsoleOptions
	// PageTitle is the title of the web page.
	PageTitle string
	// Notifications is shown by /api/v1/notifications and followed by /api/v1/notifications/live.
	Notifications *notifications.Notifications
	// UserAssets is a directory that is served below /user; "": none.
	UserAssets string
	// LookbackDelta is how old a sample may be that /federate shows, and how often OTLP's target_info is repeated.
	LookbackDelta time.Duration
	// Consistency is the level of reads that do not name one.
	Consistency Level
	// MaxStaleness is what the level bounded allows.
	MaxStaleness time.Duration
	// QueryTimeout bounds the wait for a fresh state, which is never longer than 10 s.
	QueryTimeout time.Duration
	// Retention is shown by /api/v1/status/runtimeinfo, such as "15d".
	Retention func() string
	// LastReload tells whether the newest reload of the configuration succeeded, and when one last did. nil: there
	// was none.
	LastReload func() (ok bool, at time.Time)
	// AcceptMessages lists the remote-write messages that are taken; nil: all.
	AcceptMessages remoteapi.MessageTypes
	RemoteRead     RemoteReadLimits
	// Ruler evaluates the rules; nil: there are none.
	Ruler      Ruler
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
}

// RemoteReadLimits are the storage.remote.read-* flags of Prometheus. 0 means no limit, but for BytesInFrame.
type RemoteReadLimits struct {
	Samples, Concurrency, BytesInFrame int
}

// concurrency is the limit for the library, whose gate lets nobody in when it is 0.
func (l RemoteReadLimits) concurrency() int {
	if l.Concurrency == 0 {
		return math.MaxInt32
	}
	return l.Concurrency
}

// API serves HTTP. Its methods are goroutine-safe.
type API struct {
	cfg        Config
	logger     *slog.Logger
	birth      time.Time
	gate       *gate
	metrics    *metrics
	write      http.Handler
	prometheus *v1.API
	handler    http.Handler
}

// New builds the API and registers its metrics, and answers the requests of other nodes from then on. It starts no goroutines. It fails only on a Config that makes no sense.
func New(cfg Config) (*API, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Source == nil {
		cfg.Source = cfg.FSM
	}
	a := &API{
		cfg:    cfg,
		logger: cfg.Logger,
		birth:  time.Now().UTC(),
		gate:   &gate{cluster: cfg.Cluster},
	}
	a.metrics = newMetrics(cfg.Registerer, a.gate)
	a.write = remotewrite.New(remotewrite.Config{
		NewBatch:          func() remotewrite.Batch { return cfg.FSM.NewBatch() },
		Proposer:          cfg.Cluster,
		Newest:            cfg.Cluster.Newest,
		NodeID:            cfg.Cluster.ID(),
		Accept:            cfg.AcceptMessages,
		TypeAndUnitLabels: cfg.TypeAndUnitLabels,
		Logger:            cfg.Logger.With("component", "remote write"),
		Registerer:        cfg.Registerer,
	})
	a.registerFeatures()
	a.prometheus = a.newPrometheusAPI()
	a.handler = a.recoverPanics(traced(a.multipartForms(a.withGRPC(a.newGRPC(), a.routes()))))
	cfg.Cluster.HandlePeers(a.recoverPanics(a.peerHandler()))
	return a, nil
}

func (c *Config) check() error {
	switch {
	case c.EnableOTLP && c.Appendable == nil:
		return errors.New("OTLP is enabled without an appendable")
	case c.OTLP.ConvertDelta && c.OTLP.NativeDelta:
		return errors.New("OTLP delta samples cannot be both converted and stored as they are")
	case c.EnableLifecycle && (c.Reload == nil || c.Quit == nil):
		return errors.New("lifecycle is enabled without functions to reload and to quit")
	}
	_, err := ParseLevel(string(c.Consistency))
	return err
}

// Handler serves all of it, gRPC too if the connection speaks HTTP/2.
func (a *API) Handler() http.Handler { return a.handler }
