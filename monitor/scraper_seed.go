// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"errors"
	"reflect"
	"unsafe"

	"github.com/prometheus/prometheus/scrape"
)

// seedName stands for the host in the seed of the slots.
const seedName = "deucalion"

// shareSlots gives a target the same slot of its interval on all nodes, so that one which moves is scraped on at its next
// slot. The library makes the slot of the target, of the external labels, which keep two clusters apart, and of the name
// of the host, which each node has its own of. Nothing public replaces that name. Cost: a release of the library may
// rename the field; NewScraper then fails, and TestNodesShareSlots. May go when there is an option for the seed.
func shareSlots(o *scrape.Options) error {
	field := reflect.ValueOf(o).Elem().FieldByName("fqdn")
	if !field.IsValid() || field.Kind() != reflect.String {
		return errors.New("this version of Prometheus's package scrape makes the slots of targets otherwise")
	}
	*(*string)(unsafe.Pointer(field.UnsafeAddr())) = seedName
	return nil
}
