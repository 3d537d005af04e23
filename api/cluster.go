// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/deucaliondb/deucalion/cluster"
)

// clusterWait bounds how long /api/v1/cluster waits for members that do not answer.
const clusterWait = 5 * time.Second

type clusterData struct {
	Leader    string               `json:"leader"` // "" while this node knows of none
	ClusterID string               `json:"cluster_id"`
	Level     uint32               `json:"level"` // of the log format that is in use: the lowest that was known to all nodes
	Nodes     []cluster.NodeStatus `json:"nodes"`
}

// clusterStatus is /api/v1/cluster. It needs no leader: it is what one looks at when there is none.
func (a *API) clusterStatus(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), clusterWait)
	defer cancel()
	leader, _ := a.cfg.Cluster.Leader()
	nodes := a.cfg.Cluster.Nodes(ctx)
	if nodes == nil {
		nodes = []cluster.NodeStatus{}
	}
	w.Header().Set(headerNode, a.cfg.Cluster.ID())
	settings := a.cfg.FSM.Settings()
	respond(w, clusterData{Leader: leader, ClusterID: settings.ClusterID, Level: max(settings.MinVersion, 1), Nodes: nodes})
}
