// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package helm_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

const (
	chartDir      = "../../deploy/helm"
	kubernetesDir = "../../deploy/kubernetes"
)

// objects are manifests by kind and name.
type objects map[string]map[string]any

func (o objects) add(t *testing.T, text string) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var object map[string]any
		require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &object), "%s", doc)
		if object == nil {
			continue // only comments
		}
		require.Contains(t, object, "kind", "%s", doc)
		key := object["kind"].(string) + " " + object["metadata"].(map[string]any)["name"].(string)
		require.NotContains(t, o, key)
		o[key] = object
	}
}

func render(t *testing.T, release string, values map[string]any) objects {
	t.Helper()
	chart, err := loader.Load(chartDir)
	require.NoError(t, err)
	require.NoError(t, chart.Validate())
	all, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: release, Namespace: "monitoring"}, nil)
	require.NoError(t, err)
	files, err := engine.Engine{Strict: true}.Render(chart, all)
	require.NoError(t, err)
	out := objects{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out.add(t, files[name])
	}
	return out
}

// kustomized does to the manifests what their kustomization says.
func kustomized(t *testing.T) objects {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(kubernetesDir, "kustomization.yaml"))
	require.NoError(t, err)
	var k struct {
		Labels    []struct{ Pairs map[string]any }
		Resources []string
		Images    []struct{ Name, NewTag string }
	}
	require.NoError(t, yaml.Unmarshal(text, &k))
	out := objects{}
	for _, name := range k.Resources {
		text, err := os.ReadFile(filepath.Join(kubernetesDir, name))
		require.NoError(t, err)
		out.add(t, string(text))
	}
	for key, o := range out {
		metadata := o["metadata"].(map[string]any)
		require.NotContains(t, metadata, "labels")
		metadata["labels"] = k.Labels[0].Pairs
		if strings.HasPrefix(key, "StatefulSet ") {
			container := containerOf(o)
			require.Equal(t, k.Images[0].Name, container["image"])
			container["image"] = k.Images[0].Name + ":" + k.Images[0].NewTag
		}
	}
	return out
}

func containerOf(set map[string]any) map[string]any {
	pod := set["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	return pod["containers"].([]any)[0].(map[string]any)
}

// Without values the chart is what kubectl makes of deploy/kubernetes, which test/deploy reads as an API server does.
func TestChartIsTheManifests(t *testing.T) {
	want, got := kustomized(t), render(t, "deucalion", nil)
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	for key := range want {
		require.Equal(t, want[key], got[key], key)
	}
}

// The guide's command sets what it says.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/getting-started.md")
	require.NoError(t, err)
	m := regexp.MustCompile("`helm install (\\S+) deploy/helm --create-namespace --namespace \\S+ --set (\\S+)`").FindStringSubmatch(string(text))
	require.NotNil(t, m)
	values, err := strvals.Parse(m[2])
	require.NoError(t, err)
	got := render(t, m[1], values)
	require.Equal(t, "registry.example.com/deucalion:v0.1.0", containerOf(got["StatefulSet "+m[1]])["image"])
}

// Every value does what it says.
func TestValues(t *testing.T) {
	got := render(t, "metrics", map[string]any{
		"image":     map[string]any{"repository": "registry.example.com/deucalion", "tag": "v1"},
		"replicas":  5,
		"resources": map[string]any{"limits": map[string]any{"memory": "8Gi"}},
		"storage":   map[string]any{"size": "100Gi", "className": "fast"},
		"retention": "30d", "extraArgs": []any{"--web.enable-admin-api", "--log.format=json"},
		"config": "global: {scrape_interval: 5s}\n", "rules": "groups: []\n",
		"serviceMonitor": map[string]any{"enabled": true, "interval": "30s", "labels": map[string]any{"release": "prometheus"}},
	})
	text, err := yaml.Marshal(got["StatefulSet metrics"])
	require.NoError(t, err)
	var set appsv1.StatefulSet
	require.NoError(t, yaml.UnmarshalStrict(text, &set))
	require.EqualValues(t, 5, *set.Spec.Replicas)
	require.Equal(t, "metrics-nodes", set.Spec.ServiceName)
	require.Contains(t, got, "Service metrics-nodes")
	c := set.Spec.Template.Spec.Containers[0]
	require.Equal(t, "registry.example.com/deucalion:v1", c.Image)
	require.Subset(t, c.Args, []string{
		"--cluster.bootstrap-expect=5", "--cluster.peer=metrics-nodes:9191", "--storage.tsdb.retention.time=30d",
		"--web.enable-admin-api", "--log.format=json",
	})
	require.Equal(t, "8Gi", c.Resources.Limits.Memory().String())
	claim := set.Spec.VolumeClaimTemplates[0].Spec
	require.Equal(t, "100Gi", claim.Resources.Requests.Storage().String())
	require.Equal(t, "fast", *claim.StorageClassName)
	require.Equal(t, "metrics", set.Spec.Template.Spec.Volumes[0].ConfigMap.Name)
	require.Equal(t, map[string]any{"prometheus.yml": "global: {scrape_interval: 5s}\n", "rules.yml": "groups: []\n"}, got["ConfigMap metrics"]["data"])

	monitor := got["ServiceMonitor metrics"]
	require.Equal(t, map[string]any{"app.kubernetes.io/name": "metrics", "release": "prometheus"}, monitor["metadata"].(map[string]any)["labels"])
	require.Equal(t, []any{map[string]any{"port": "http", "interval": "30s"}}, monitor["spec"].(map[string]any)["endpoints"])
	for key, o := range got {
		name := o["metadata"].(map[string]any)["name"].(string)
		require.True(t, strings.HasPrefix(name, "metrics"), key)
	}
	set1, err := yaml.Marshal(got)
	require.NoError(t, err)
	require.NotContains(t, string(set1), "name: deucalion-nodes")
}
