// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/cluster"
)

// options are the flags. Names, defaults and meanings are Prometheus's where it has them.
type options struct {
	configFile         string
	configFileSet      bool // by the user; else it may be absent
	autoReload         bool
	autoReloadInterval model.Duration
	featureList        []string
	features           featureSet
	log                promslog.Config
	logLevel           string // as the command line has it; log's follows the configuration file

	listen          []string
	readTimeout     model.Duration
	maxConnections  int
	externalURL     string
	corsOrigin      string
	enableAdmin     bool
	receiver        bool // accepted; the receiver is always on
	acceptedMessage remoteapi.MessageTypes

	dataDir       string
	retentionTime model.Duration
	retentionSize units.Base2Bytes
	minFree       units.Base2Bytes
	minFreeSet    bool

	remoteRead api.RemoteReadLimits

	scrubInterval  model.Duration
	lookback       model.Duration
	queryTimeout   model.Duration
	maxConcurrency int
	maxSamples     int
	consistency    string
	maxStaleness   model.Duration

	nodeID            string
	clusterListen     string
	clusterAddr       string
	gossipListen      string
	gossipAddr        string
	peers             []string
	bootstrapExpect   int
	logStore          string
	digestInterval    model.Duration
	snapshotMaxRate   units.Base2Bytes
	unshippedLogBytes units.Base2Bytes
	tuning            tuning
	monitoring        monitoring
	web               webOptions
	process           processOptions
	ignored           ignored

	shown map[string]string // all flags and their values, for /api/v1/status/flags
}

// parseFlags reads args. exit is set, and the run over, after --help and --version.
func parseFlags(args []string, stdout, stderr io.Writer) (o *options, exit *int, err error) {
	o = &options{}
	app := kingpin.New("deucalion", "A Prometheus server replicated by Raft.\n\n"+commandsHelp).UsageWriter(stdout).ErrorWriter(stderr)
	app.Version(version.Print("deucalion"))
	app.HelpFlag.Short('h')
	app.Terminate(func(code int) { exit = &code })
	o.webFlags(app)
	o.storageFlags(app)
	o.queryFlags(app)
	o.clusterFlags(app)
	o.tuning.flags(app)
	o.monitoring.flags(app)
	o.web.flags(app)
	o.process.flags(app)
	o.ignored.flags(app)
	promslogflag.AddFlags(app, &o.log)
	if _, err := app.Parse(args); err != nil || exit != nil {
		return nil, exit, err
	}
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	o.logLevel = o.log.Level.String()
	o.shown = shownFlags(app)
	return o, nil, nil
}

func (o *options) webFlags(app *kingpin.Application) {
	app.Flag("config.file", "Prometheus configuration file path. Without this flag and without such a file the built-in defaults are used.").
		Default("prometheus.yml").IsSetByUser(&o.configFileSet).StringVar(&o.configFile)
	app.Flag("config.auto-reload", "Enable automatic configuration file reloading. See also --config.auto-reload-interval.").
		Default("false").BoolVar(&o.autoReload)
	app.Flag("config.auto-reload-interval", "Specifies the interval for checking and automatically reloading the configuration file upon detecting changes. Only used when --config.auto-reload is set.").
		Default("30s").SetValue(&o.autoReloadInterval)
	app.Flag("enable-feature", "Comma separated feature names to enable. Those of Prometheus are known; docs/differences.md says which have an effect.").
		StringsVar(&o.featureList)
	app.Flag("web.listen-address", "Address to listen on for UI, API, and telemetry. Can be repeated.").
		Default("0.0.0.0:9090").StringsVar(&o.listen)
	app.Flag("web.read-timeout", "Maximum duration before timing out read of the request, and closing idle connections.").
		Default("5m").SetValue(&o.readTimeout)
	app.Flag("web.max-connections", "Maximum number of simultaneous connections across all listeners.").
		Default("512").IntVar(&o.maxConnections)
	app.Flag("web.external-url", "The URL under which this node is externally reachable (for example, if it is served via a reverse proxy). If the URL has a path portion, it will be used to prefix all HTTP endpoints. If omitted, relevant URL components will be derived automatically.").
		PlaceHolder("<URL>").StringVar(&o.externalURL)
	app.Flag("web.cors.origin", `Regex for CORS origin. It is fully anchored. Example: 'https?://(domain1|domain2)\.com'`).
		Default(".*").StringVar(&o.corsOrigin)
	app.Flag("web.enable-admin-api", "Enable API endpoints for admin control actions.").
		Default("false").BoolVar(&o.enableAdmin)
	app.Flag("web.enable-remote-write-receiver", "Accepted for compatibility: the remote write receiver is always on.").
		Default("true").BoolVar(&o.receiver)
	all := remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}
	app.Flag("web.remote-write-receiver.accepted-protobuf-messages", fmt.Sprintf("List of the remote write protobuf messages to accept when receiving the remote writes. Supported values: %v", all.String())).
		Default(all.Strings()...).SetValue(&messageTypes{&o.acceptedMessage})
}

func (o *options) storageFlags(app *kingpin.Application) {
	app.Flag("storage.tsdb.path", "Base path of everything that this node stores.").
		Default("data/").StringVar(&o.dataDir)
	app.Flag("storage.tsdb.retention.time", "How long to retain samples in storage. If neither this flag nor \"storage.tsdb.retention.size\" is set, the retention time defaults to 15d. Units Supported: y, w, d, h, m, s, ms. Must be the same on all nodes.").
		SetValue(&o.retentionTime)
	app.Flag("storage.tsdb.retention.size", "Maximum number of bytes that can be stored for blocks. A unit is required, supported units: B, KB, MB, GB, TB, PB, EB. Ex: \"512MB\". Based on powers-of-2, so 1KB is 1024B. Must be the same on all nodes.").
		BytesVar(&o.retentionSize)
	app.Flag("storage.scrub-interval", "How often all blocks on the disk are compared with their checksums. 0: only when damage is met. A node that finds damage restarts and repairs it from the other nodes.").
		Default("1d").SetValue(&o.scrubInterval)
	app.Flag("storage.min-free", "Room that this node leaves on the disk. With less, it is not ready, hands the leadership over and takes no samples until there is room again; with less than half of it, it takes part in nothing. The default is at most a tenth of the file system. 0 switches it off. Units as for \"storage.tsdb.retention.size\".").
		Default("1GiB").IsSetByUser(&o.minFreeSet).BytesVar(&o.minFree)
	app.Flag("storage.remote.read-sample-limit", "Maximum overall number of samples to return via the remote read interface, in a single query. 0 means no limit. This limit is ignored for streamed response types.").
		Default("5e7").SetValue((*sampleLimit)(&o.remoteRead.Samples))
	app.Flag("storage.remote.read-concurrent-limit", "Maximum number of concurrent remote read calls. 0 means no limit.").
		Default("10").IntVar(&o.remoteRead.Concurrency)
	app.Flag("storage.remote.read-max-bytes-in-frame", "Maximum number of bytes in a single frame for streaming remote read response types before marshalling. Note that client might have limit on frame size as well. 1MB as recommended by protobuf by default.").
		Default("1048576").IntVar(&o.remoteRead.BytesInFrame)
}

func (o *options) queryFlags(app *kingpin.Application) {
	app.Flag("query.lookback-delta", "The maximum lookback duration for retrieving metrics during expression evaluations and federation.").
		Default("5m").SetValue(&o.lookback)
	app.Flag("query.timeout", "Maximum time a query may take before being aborted.").
		Default("2m").SetValue(&o.queryTimeout)
	app.Flag("query.max-concurrency", "Maximum number of queries executed concurrently.").
		Default("20").IntVar(&o.maxConcurrency)
	app.Flag("query.max-samples", "Maximum number of samples a single query can load into memory. Note that queries will fail if they try to load more samples than this into memory, so this also limits the number of samples a query can return.").
		Default("50000000").IntVar(&o.maxSamples)
	app.Flag("query.consistency", "How fresh the state must be that a read is answered from, unless the request says it: local, bounded or linearizable.").
		Default(string(api.Bounded)).EnumVar(&o.consistency, string(api.Local), string(api.Bounded), string(api.Linearizable))
	app.Flag("query.max-staleness", "How far this node may be behind the leader and still answer reads at level bounded.").
		Default("10s").SetValue(&o.maxStaleness)
}

func (o *options) clusterFlags(app *kingpin.Application) {
	app.Flag("node.id", "Name of this node, for ever. Default: the one kept in the data directory, else a random one.").StringVar(&o.nodeID)
	app.Flag("cluster.listen-address", "Address to listen on for Raft and calls between nodes.").
		Default("0.0.0.0:9190").StringVar(&o.clusterListen)
	app.Flag("cluster.advertise-address", "Address under which the other nodes reach --cluster.listen-address. Default: derived.").StringVar(&o.clusterAddr)
	app.Flag("cluster.gossip-listen-address", "Address to listen on for gossip, TCP and UDP.").
		Default("0.0.0.0:9191").StringVar(&o.gossipListen)
	app.Flag("cluster.gossip-advertise-address", "Address under which the other nodes reach --cluster.gossip-listen-address. Default: derived.").StringVar(&o.gossipAddr)
	app.Flag("cluster.peer", "Gossip address of another node. Can be repeated. A name is tried with all of its addresses, again and again.").StringsVar(&o.peers)
	app.Flag("cluster.bootstrap-expect", "How many nodes form a new cluster, once. Ignored by a node that belongs to one.").
		Default("1").IntVar(&o.bootstrapExpect)
	app.Flag("cluster.digest-interval", "How often all nodes compare hashes of their data. 0 switches that off.").
		Default("1h").SetValue(&o.digestInterval)
	app.Flag("raft.log-store", "What keeps the Raft log: wal or boltdb. Fixed for the life of the data directory.").
		Default(cluster.LogStoreWAL).EnumVar(&o.logStore, cluster.LogStoreWAL, cluster.LogStoreBoltDB)
	app.Flag("raft.unshipped-log-size", "Maximum number of bytes of Raft log that a node keeps for remote_write stores that have not got it yet. What is older is not sent to them any more. Based on powers-of-2, so 1KB is 1024B.").
		Default("1GiB").BytesVar(&o.unshippedLogBytes)
	app.Flag("cluster.snapshot-max-rate", "Maximum number of bytes per second of Raft snapshots that this node sends to nodes which are too far behind for the log. 0 means no limit. Based on powers-of-2, so 1KB is 1024B.").
		Default("64MiB").BytesVar(&o.snapshotMaxRate)
}

// check refuses values that parse and still make no sense.
func (o *options) check() error {
	switch {
	case o.bootstrapExpect < 1:
		return fmt.Errorf("--cluster.bootstrap-expect must be at least 1, got %d", o.bootstrapExpect)
	case o.maxConcurrency < 1:
		return fmt.Errorf("--query.max-concurrency must be at least 1, got %d", o.maxConcurrency)
	case o.maxConnections < 1:
		return fmt.Errorf("--web.max-connections must be at least 1, got %d", o.maxConnections)
	case o.remoteRead.Concurrency < 0:
		return fmt.Errorf("--storage.remote.read-concurrent-limit must not be negative, got %d", o.remoteRead.Concurrency)
	case o.web.searchLimit < 0:
		return fmt.Errorf("--web.search.max-limit must be non-negative; got %d (use 0 to disable the cap)", o.web.searchLimit)
	case o.minFree < 0:
		return fmt.Errorf("--storage.min-free must not be negative, got %s", o.minFree)
	case o.maxStaleness <= 0:
		return fmt.Errorf("--query.max-staleness must be positive, got %s", o.maxStaleness)
	case o.unshippedLogBytes <= 0:
		return fmt.Errorf("--raft.unshipped-log-size must be positive, got %s", o.unshippedLogBytes)
	case o.snapshotMaxRate < 0:
		return fmt.Errorf("--cluster.snapshot-max-rate must not be negative, got %s", o.snapshotMaxRate)
	case o.process.memLimitRatio <= 0 || o.process.memLimitRatio > 1:
		return errors.New("--auto-gomemlimit.ratio must be greater than 0 and less than or equal to 1")
	case strings.TrimSpace(o.dataDir) == "":
		return fmt.Errorf("--storage.tsdb.path must not be empty")
	}
	return nil
}

// digestEvery is the interval as package cluster takes it, for which zero is the default.
func (o *options) digestEvery() time.Duration {
	if o.digestInterval == 0 {
		return -1
	}
	return time.Duration(o.digestInterval)
}

// roomToLeave is --storage.min-free. Its default is less on a small file system.
func (o *options) roomToLeave() int64 {
	if o.minFreeSet {
		return int64(o.minFree)
	}
	return min(int64(o.minFree), cluster.DefaultMinFree(o.dataDir))
}

// retention is what the two flags say together: 15 days unless one of them is given.
func (o *options) retention() retention {
	r := retention{time: time.Duration(o.retentionTime), size: int64(o.retentionSize)}
	if r.time == 0 && r.size == 0 {
		r.time = defaultRetention
	}
	if r.time < 0 { // more than 292 years overflow; Prometheus makes them 100
		r.time = maxRetention
	}
	return r
}
