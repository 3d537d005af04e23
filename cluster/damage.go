// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const damageRetry = 10 * time.Second

// watchDamage ends the process when a block on its disk is damaged and the other members are well, so that the next
// start sets the block aside and gets what was in it from them. Until then, and in a cluster of one, the node goes on,
// unless it has met the damage in applying the log: reads of the damaged block fail, and a metric and a log line tell.
func (n *Node) watchDamage(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-n.fsm.Damaged():
	}
	err := n.fsm.Damage()
	for ctx.Err() == nil {
		ids := voters(n.servers())
		if len(ids) == 1 && ids[0] == n.id {
			n.logger.Error("A block is damaged, and there is no other node to repair it from; restore the data directory from a backup", "err", err)
			return
		}
		if n.othersAreWell(ctx) {
			if markErr := markVerifyAll(n.cfg.Dir); markErr != nil {
				n.logger.Error("Cannot ask the next start for a repair", "err", markErr)
			}
			n.fatal(fmt.Errorf("%w; the next start repairs it from the other nodes", err))
			return
		}
		n.logger.Error("A block is damaged; this node restarts to repair it once all others are well", "err", err)
		sleep(ctx, damageRetry)
	}
}

// othersAreWell tells whether this node may go.
func (n *Node) othersAreWell(ctx context.Context) bool { return mayRepair(n.id, n.Nodes(ctx)) }

// mayRepair: the others are there, have their votes and no trouble of their own, for a node that repairs itself may have
// no vote meanwhile. Several that are damaged go one after the other: first those that damage has stopped, which take no
// part as it is, then by their ids.
func mayRepair(self string, members []NodeStatus) bool {
	own := NodeStatus{ID: self}
	if i := slices.IndexFunc(members, func(s NodeStatus) bool { return s.ID == self }); i >= 0 {
		own = members[i]
	}
	for _, s := range members {
		switch {
		case s.ID == self:
		case s.Role == RoleUnreachable || s.Recovering != "":
			return false
		case s.Err != "" && s.Damaged == "":
			return false
		case s.Damaged != "" && repairsBefore(s, own):
			return false
		}
	}
	return true
}

func repairsBefore(a, b NodeStatus) bool {
	if stopped := a.Err != ""; stopped != (b.Err != "") {
		return stopped
	}
	return a.ID < b.ID
}

func markVerifyAll(dir string) error {
	f, err := os.Create(filepath.Join(dir, verifyAllName))
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(dir)
}
