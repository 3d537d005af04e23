// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	"go.yaml.in/yaml/v2"

	"github.com/deucaliondb/deucalion/fsm"
)

// remoteStore is one remote_write section of the configuration file.
type remoteStore struct {
	key      string // names its position in the log: as stable as can be
	name     string // in metrics and logs, as in Prometheus
	hash     string // of all that makes a new queue necessary
	config   *config.RemoteWriteConfig
	external labels.Labels
	client   remote.WriteClient
}

// remoteStores checks the remote_write sections and makes a client for each.
func remoteStores(c *config.Config) ([]*remoteStore, error) {
	if n := len(c.RemoteWriteConfigs); n > fsm.MaxRemotes {
		return nil, fmt.Errorf("%d remote_write sections, at most %d", n, fsm.MaxRemotes)
	}
	var out []*remoteStore
	hashes, sameURL := map[string]bool{}, map[string]int{}
	for _, rw := range c.RemoteWriteConfigs {
		b, err := yaml.Marshal(rw)
		if err != nil {
			return nil, err
		}
		sum := md5.Sum(b) // as Prometheus, for the name is made of it
		r := &remoteStore{hash: hex.EncodeToString(sum[:]), config: rw, external: c.GlobalConfig.ExternalLabels}
		if hashes[r.hash] {
			return nil, fmt.Errorf("duplicate remote write configs are not allowed, found duplicate for URL: %s", rw.URL.Redacted())
		}
		hashes[r.hash] = true
		r.name, r.key = rw.Name, "name:"+rw.Name
		if rw.Name == "" {
			url := rw.URL.Redacted()
			r.name, r.key = r.hash[:6], fmt.Sprintf("url:%s#%d", url, sameURL[url])
			sameURL[url]++
		}
		if len(r.key) > fsm.MaxRemoteName {
			r.key = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(r.key)))
		}
		if r.client, err = newWriteClient(r); err != nil {
			return nil, fmt.Errorf("remote_write %s: %w", rw.URL.Redacted(), err)
		}
		out = append(out, r)
	}
	return out, nil
}

func newWriteClient(r *remoteStore) (remote.WriteClient, error) {
	rw := r.config
	return remote.NewWriteClient(r.name, &remote.ClientConfig{
		URL:              rw.URL,
		WriteProtoMsg:    rw.ProtobufMessage,
		Timeout:          rw.RemoteTimeout,
		HTTPClientConfig: rw.HTTPClientConfig,
		SigV4Config:      rw.SigV4Config,
		AzureADConfig:    rw.AzureADConfig,
		GoogleIAMConfig:  rw.GoogleIAMConfig,
		Headers:          rw.Headers,
		RetryOnRateLimit: rw.QueueConfig.RetryOnRateLimit,
		RoundRobinDNS:    rw.RoundRobinDNS,
	})
}

// sameQueue tells whether the queue of r may go on for other.
func (r *remoteStore) sameQueue(other *remoteStore) bool {
	return r.hash == other.hash && labels.Equal(r.external, other.external)
}

// maxBatchDeadline bounds how long a sample waits for the batch to fill. All that is on its way is sent again after a
// failover, and a remote store may refuse samples that are older than others of their series: it should be less than a
// scrape interval.
const maxBatchDeadline = time.Second

func (r *remoteStore) batchDeadline() time.Duration {
	return min(time.Duration(r.config.QueueConfig.BatchSendDeadline), maxBatchDeadline)
}
