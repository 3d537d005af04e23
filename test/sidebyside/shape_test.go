// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// shape describes the form of a JSON value: the keys of objects with the types of what they hold, without the values.
// Elements of an array are taken together. Objects whose keys are data (label sets, names of metrics) have the key *.
func shape(raw []byte, path string) (map[string]bool, error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("%w: %.200s", err, raw)
	}
	out := map[string]bool{}
	describe(v, "", path, out)
	return out, nil
}

// shapeOfLines takes the JSON values of all lines together.
func shapeOfLines(raw []byte, path string) (map[string]bool, error) {
	out := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		of, err := shape([]byte(line), path)
		if err != nil {
			return nil, err
		}
		maps.Copy(out, of)
	}
	return out, nil
}

// dataKeys are objects whose keys are data, by their place.
var dataKeys = []string{"labels", "discoveredLabels", "metric", "alertLabels", "annotations", "seriesLabels", "target"}

func describe(v any, at, path string, out map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		open := slices.ContainsFunc(dataKeys, func(k string) bool { return strings.HasSuffix(at, "."+k) }) ||
			at == ".data" && (strings.HasPrefix(path, "/api/v1/metadata") || strings.HasPrefix(path, "/api/v1/status/flags")) ||
			at == ".data[]" && strings.HasPrefix(path, "/api/v1/series") ||
			strings.HasSuffix(at, ".droppedTargetCounts")
		out[at+" object"] = true
		for k, x := range v {
			if open {
				k = "*"
			}
			describe(x, at+"."+k, path, out)
		}
	case []any:
		out[at+" array"] = true
		for _, x := range v {
			describe(x, at+"[]", path, out)
		}
	case string:
		out[at+" string"] = true
	case float64:
		out[at+" number"] = true
	case bool:
		out[at+" bool"] = true
	case nil:
		out[at+" null"] = true
	}
}

// minus lists what a has and b lacks.
func minus(a, b map[string]bool) []string {
	missing := slices.DeleteFunc(slices.Collect(maps.Keys(a)), func(k string) bool { return b[k] })
	sort.Strings(missing)
	return missing
}
