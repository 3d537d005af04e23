// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// freeNetworks makes sure that the networks are nobody else's: packets would go to whoever was first. A bridge without
// anything on it is what an engine leaves that was stopped before the project was removed.
func freeNetworks(ctx context.Context) error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			if !strings.HasPrefix(addr.String(), composeClusterNet+".") && !strings.HasPrefix(addr.String(), composeClientNet+".") {
				continue
			}
			ports, err := os.ReadDir(filepath.Join("/sys/class/net", i.Name, "brif"))
			if err != nil || len(ports) > 0 {
				return fmt.Errorf("%s of %s: %w", addr, i.Name, errInUse)
			}
			if err := command(ctx, "ip", "link", "delete", i.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
